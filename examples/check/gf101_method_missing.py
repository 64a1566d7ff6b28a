"""finalize_job was forgotten."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF101",)


class TileIndex:
    job_type = "tile_index"
    description = "An index of tiles."
    stages = Elevation.stages[:2]

    @staticmethod
    def validate_job_parameters(params):
        return Elevation.validate_job_parameters(params)

    @staticmethod
    def generate_job_id(params):
        return Elevation.generate_job_id(params)

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)


ALL_JOBS = {"tile_index": TileIndex}
ALL_HANDLERS = HANDLERS
