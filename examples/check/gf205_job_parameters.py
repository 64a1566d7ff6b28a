"""finalize is written as an older docstring says."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF205",)


class FloodMap(Elevation):
    job_type = "flood_map"

    @staticmethod
    def finalize_job(context=None):
        return {"prefix": context.job_parameters["prefix"]}


ALL_JOBS = {"flood_map": FloodMap}
ALL_HANDLERS = HANDLERS
