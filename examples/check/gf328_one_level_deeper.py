"""The plan looks for tiles where the handler's result is one level deeper."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF328",)


class TileCopies(Elevation):
    job_type = "tile_copies"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        return [
            {"task_id": f"{job_id[:8]}-{tile}", "task_type": "measure_tile", "parameters": {"tile": tile}}
            for tile in previous_results[0]["tiles"]
        ]


ALL_JOBS = {"tile_copies": TileCopies}
ALL_HANDLERS = HANDLERS
