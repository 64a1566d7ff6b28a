"""The plan says params where it must say parameters."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF320",)


class NightLights(Elevation):
    job_type = "night_lights"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return [{"task_id": f"{job_id[:8]}-find", "task_type": "find_tiles", "params": job_params}]


ALL_JOBS = {"night_lights": NightLights}
ALL_HANDLERS = HANDLERS
