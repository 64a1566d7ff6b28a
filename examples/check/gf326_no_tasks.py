"""A filter leaves no tile over."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF326",)


class Archive(Elevation):
    job_type = "archive"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        old = [tile for tile in previous_results[0]["result"]["tiles"] if tile.endswith(".old")]
        return [
            {"task_id": f"{job_id[:8]}-{tile}", "task_type": "measure_tile", "parameters": {"tile": tile}}
            for tile in old
        ]


ALL_JOBS = {"archive": Archive}
ALL_HANDLERS = HANDLERS
