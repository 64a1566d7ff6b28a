"""A clean job type as a contract class: find tiles, measure each, merge. The others are this one with a defect."""

import hashlib
import json

EXPECTED = ()
TILES = ["n46e007", "n46e008", "n47e007"]


def find_tiles(params):
    tiles = [tile for tile in params["tiles"] if tile.startswith(params["prefix"])]
    return {"success": True, "result": {"tiles": tiles}}


def measure_tile(params):
    tile = params["tile"]
    if not tile[1:3].isdecimal():
        return {"success": False, "error": f"{tile} is no name of a tile", "retryable": False}
    return {"success": True, "result": {"tile": tile, "low": 100.0, "high": 100.0 * int(tile[1:3])}}


def merge_tiles(params):
    measured = [one["result"] for one in params["previous_results"]]
    return {"success": True, "result": {"tiles": len(measured), "high": max(one["high"] for one in measured)}}


class Elevation:
    job_type = "elevation"
    description = "The highest elevation over a set of tiles."
    parameters_schema = {
        "prefix": {"type": "str", "default": "n"},
        "tiles": {"type": "list", "default": TILES},
    }
    stages = [
        {"number": 1, "name": "find", "task_type": "find_tiles", "parallelism": "single"},
        {"number": 2, "name": "measure", "task_type": "measure_tile", "parallelism": "fan_out"},
        {"number": 3, "name": "merge", "task_type": "merge_tiles", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params):
        tiles = params.get("tiles", TILES)
        if not isinstance(tiles, list) or not tiles:
            raise ValueError("tiles must be a list of at least one name, such as n46e007")
        return {"prefix": str(params.get("prefix", "n")), "tiles": tiles}

    @classmethod
    def generate_job_id(cls, params):
        return hashlib.sha256(f"{cls.job_type}|{json.dumps(params, sort_keys=True)}".encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return [{"task_id": f"{job_id[:8]}-find", "task_type": "find_tiles", "parameters": job_params}]
        return [
            {"task_id": f"{job_id[:8]}-measure-{tile}", "task_type": "measure_tile", "parameters": {"tile": tile}}
            for tile in previous_results[0]["result"]["tiles"]
        ]

    @staticmethod
    def finalize_job(context=None):
        merged = [task.result_data["result"] for task in context.task_results if task.success]
        return {"prefix": context.parameters["prefix"], "high": merged[-1].get("high") if merged else None}


HANDLERS = {"find_tiles": find_tiles, "measure_tile": measure_tile, "merge_tiles": merge_tiles}
ALL_JOBS = {"elevation": Elevation}
ALL_HANDLERS = HANDLERS
