"""It asks for no parameters, and its plan reads the stage, which is a number, as a dict."""

from elevation import HANDLERS, TILES, Elevation

EXPECTED = ("GF332",)


class Coast(Elevation):
    job_type = "coast"
    parameters_schema = None

    @staticmethod
    def validate_job_parameters(params):
        return {}

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        given = {"prefix": "n", "tiles": TILES}
        return [{"task_id": f"{job_id[:8]}-{stage['name']}", "task_type": "find_tiles", "parameters": given}]


ALL_JOBS = {"coast": Coast}
ALL_HANDLERS = HANDLERS
