"""Two tiles of one latitude have one task id."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF321",)


class ForestLoss(Elevation):
    job_type = "forest_loss"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        plan = Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        return [{**task, "task_id": task["task_id"][:20]} for task in plan]


ALL_JOBS = {"forest_loss": ForestLoss}
ALL_HANDLERS = HANDLERS
