"""finalize adds up what is text."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF340",)


class TotalArea(Elevation):
    job_type = "total_area"

    @staticmethod
    def finalize_job(context=None):
        return {"area": sum(task.task_id for task in context.task_results)}


ALL_JOBS = {"total_area": TotalArea}
ALL_HANDLERS = HANDLERS
