"""The plan wants all results, and more tasks are made than the trial runs."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF902",)


class Pyramids(Elevation):
    job_type = "pyramids"
    stages = [
        {"number": 1, "name": "measure", "task_type": "measure_tile", "parallelism": "single"},
        {"number": 2, "name": "again", "task_type": "measure_tile", "parallelism": "fan_out"},
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        tiles = [f"n4{place}e007" for place in range(8)]
        if stage == 2 and len(previous_results) < len(tiles):
            raise ValueError("some tiles are missing")
        return [
            {"task_id": f"{job_id[:8]}-s{stage}-{tile}", "task_type": "measure_tile", "parameters": {"tile": tile}}
            for tile in tiles
        ]


ALL_JOBS = {"pyramids": Pyramids}
ALL_HANDLERS = HANDLERS
