"""Statistics of a folder of tiles, as a class of the contract by hand: ``python contract.py FOLDER``."""

import hashlib
import json
import sys
from pathlib import Path

from tiles import listed, measured, merged

import geoflow as gf


def scan(params):
    tiles = [{"name": path.stem, "path": str(path)} for path in listed(Path(params["folder"]))]
    return {"success": True, "result": {"tiles": tiles}}


def stat(params):
    return {"success": True, "result": measured(Path(params["path"]))}


def merge(params):
    return {"success": True, "result": merged([handled["result"] for handled in params["previous_results"]])}


class TilesByHand:
    job_type = "tiles_by_hand"
    description = "Statistics of a folder of tiles."
    stages = [
        {"number": 1, "name": "scan", "task_type": "tiles_by_hand_scan", "parallelism": "single"},
        {"number": 2, "name": "stat", "task_type": "tiles_by_hand_stat", "parallelism": "fan_out"},
        {"number": 3, "name": "merge", "task_type": "tiles_by_hand_merge", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params):
        if not isinstance(params.get("folder"), str) or not params["folder"]:
            raise ValueError("folder must be the path of a folder")
        return {"folder": params["folder"]}

    @staticmethod
    def generate_job_id(params):
        canonical = json.dumps({"folder": params["folder"]}, sort_keys=True)
        return hashlib.sha256(f"tiles_by_hand{canonical}".encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return [{"task_id": f"{job_id[:8]}-scan", "task_type": "tiles_by_hand_scan", "parameters": job_params}]
        if not previous_results:
            raise ValueError("stage 1 returned nothing")
        return [
            {
                "task_id": f"{job_id[:8]}-stat-{tile['name']}",
                "task_type": "tiles_by_hand_stat",
                "parameters": {"path": tile["path"]},
            }
            for tile in previous_results[0]["result"]["tiles"]
        ]

    @staticmethod
    def finalize_job(context=None):
        return context.task_results[-1].result_data["result"]


ALL_JOBS = {"tiles_by_hand": TilesByHand}
ALL_HANDLERS = {"tiles_by_hand_scan": scan, "tiles_by_hand_stat": stat, "tiles_by_hand_merge": merge}


if __name__ == "__main__":
    gf.register(TilesByHand, handlers=ALL_HANDLERS)
    print(json.dumps(gf.run("tiles_by_hand", folder=sys.argv[1]).result()))
