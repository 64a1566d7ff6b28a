"""The plan adds a setting for the fan_in, which nobody asks it for."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF208",)


class Pansharpen(Elevation):
    job_type = "pansharpen"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 3:
            given = {"results": previous_results, "nodata": -9999}
            return [{"task_id": f"{job_id[:8]}-merge", "task_type": "merge_tiles", "parameters": given}]
        return Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)


ALL_JOBS = {"pansharpen": Pansharpen}
ALL_HANDLERS = HANDLERS
