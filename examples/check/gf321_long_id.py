"""A task id has a whole path in it."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF321",)


class CogMirror(Elevation):
    job_type = "cog_mirror"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        plan = Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        folder = "container/imagery/2025/11/sentinel-2/level-2a/reprojected/compressed/overviews/final"
        return [{**task, "task_id": f"{folder}/{task['task_id']}"} for task in plan]


ALL_JOBS = {"cog_mirror": CogMirror}
ALL_HANDLERS = HANDLERS
