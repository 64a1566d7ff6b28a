"""finalize imports a module that is not there."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF333",)


class Drawn(Elevation):
    job_type = "drawn"

    @staticmethod
    def finalize_job(context=None):
        from elevation_colours import colours

        return {"colours": colours(context.task_results)}


ALL_JOBS = {"drawn": Drawn}
ALL_HANDLERS = HANDLERS
