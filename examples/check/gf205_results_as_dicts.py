"""finalize takes task results as dicts."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF205",)


class SnowCover(Elevation):
    job_type = "snow_cover"

    @staticmethod
    def finalize_job(context=None):
        done = [task for task in context.task_results if task["status"] == "completed"]
        return {"tiles": len(done)}


ALL_JOBS = {"snow_cover": SnowCover}
ALL_HANDLERS = HANDLERS
