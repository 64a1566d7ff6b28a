"""finalize counts on a task of one type to be there."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF207",)


class FireScars(Elevation):
    job_type = "fire_scars"

    @staticmethod
    def finalize_job(context=None):
        for task in context.task_results:
            if task.task_type == "merge_tiles":
                merged = task.result_data.get("result")
        return {"merged": merged}


ALL_JOBS = {"fire_scars": FireScars}
ALL_HANDLERS = HANDLERS
