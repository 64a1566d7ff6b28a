"""A stage was added, and the number of stages not changed."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF116",)


class ZonalStats(Elevation):
    job_type = "zonal_stats"

    @staticmethod
    def create_job_record(job_id, params):
        return {"job_id": job_id, "parameters": params, "stage": 1, "total_stages": 2}


ALL_JOBS = {"zonal_stats": ZonalStats}
ALL_HANDLERS = HANDLERS
