"""Results are put together with tiles by their place."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF325",)


def publish(params):
    return {"success": True, "result": params["measured"]}


class Publish(Elevation):
    job_type = "publish"
    stages = [
        {"number": 1, "name": "measure", "task_type": "measure_tile", "parallelism": "single"},
        {"number": 2, "name": "publish", "task_type": "publish", "parallelism": "fan_out"},
    ]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        tiles = job_params["tiles"]
        given = [{"tile": tile} for tile in tiles]
        if stage == 2:
            pairs = zip(tiles, previous_results, strict=False)
            given = [{"tile": tile, "measured": one["result"]} for tile, one in pairs]
        task_type = "measure_tile" if stage == 1 else "publish"
        return [
            {"task_id": f"{job_id[:8]}-s{stage}-{tile}", "task_type": task_type, "parameters": parameters}
            for tile, parameters in zip(tiles, given, strict=False)
        ]


ALL_JOBS = {"publish": Publish}
ALL_HANDLERS = {**HANDLERS, "publish": publish}
