"""Task ids are new each time."""

import uuid

from elevation import HANDLERS, Elevation

EXPECTED = ("GF324",)


class Vectorise(Elevation):
    job_type = "vectorise"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        plan = Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        return [{**task, "task_id": f"{job_id[:8]}-{uuid.uuid4()}"} for task in plan]


ALL_JOBS = {"vectorise": Vectorise}
ALL_HANDLERS = HANDLERS
