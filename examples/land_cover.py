"""A three-stage job type in production's own style, on text files that it makes itself; run it as a script.

Stage 1 finds tiles, stage 2 counts the classes of each, stage 3 adds them up. One tile is broken on purpose: see how
the job fails, what is kept, and how it goes on once the tile is mended.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from pathlib import Path

CLASSES = {"1": "water", "2": "forest", "3": "crops", "4": "built"}


def find_tiles(params):
    """The tiles of a folder, by name."""
    names = sorted(path.name for path in Path(params["folder"]).glob("*.asc"))
    return {"success": True, "result": {"tiles": names}}


def count_classes(params, context=None):
    """How many cells of each class a tile has."""
    text = Path(params["folder"], params["tile"]).read_text()
    unknown = sorted(set(text.split()) - set(CLASSES))
    if unknown:
        return {"success": False, "error": f"{params['tile']} has unknown classes {unknown}", "retryable": False}
    if context is not None:
        context.logger.info("counted %s", params["tile"])
    return {"success": True, "result": {"tile": params["tile"], "cells": Counter(text.split())}}


def add_up(params):
    """The counts of all tiles together."""
    total = Counter()
    for item in params["previous_results"]:
        total.update(item["result"]["cells"])
    return {"success": True, "result": {CLASSES[key]: total[key] for key in sorted(total)}}


class LandCover:
    job_type = "land_cover"
    description = "Cells of each land cover class over a folder of tiles."
    stages = [
        {"number": 1, "name": "find", "task_type": "find_tiles", "parallelism": "single"},
        {"number": 2, "name": "count", "task_type": "count_classes", "parallelism": "fan_out", "timeout": 60},
        {"number": 3, "name": "add", "task_type": "add_up", "parallelism": "fan_in"},
    ]

    @staticmethod
    def validate_job_parameters(params):
        folder = Path(str(params.get("folder", ""))).absolute()
        if not folder.is_dir():
            raise ValueError(f"folder: {folder} is not a folder")
        return {"folder": str(folder)}

    @staticmethod
    def generate_job_id(params):
        return hashlib.sha256(f"land_cover|{json.dumps(params, sort_keys=True)}".encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if stage == 1:
            return [{"task_id": f"{job_id[:8]}-find", "task_type": "find_tiles", "parameters": job_params}]
        return [
            {
                "task_id": f"{job_id[:8]}-count-{tile}",
                "task_type": "count_classes",
                "parameters": {"folder": job_params["folder"], "tile": tile},
            }
            for tile in previous_results[0]["result"]["tiles"]
        ]

    @staticmethod
    def finalize_job(context=None):
        return {"tiles": len(context.task_results) - 2, "cells": context.task_results[-1].result_data["result"]}


ALL_JOBS = {"land_cover": LandCover}
ALL_HANDLERS = {"find_tiles": find_tiles, "count_classes": count_classes, "add_up": add_up}


def main():
    import geoflow as gf

    with tempfile.TemporaryDirectory() as folder:
        for number in range(40):
            row = " ".join(str(1 + (number + cell) % 4) for cell in range(50))
            Path(folder, f"tile_{number:02d}.asc").write_text(row)
        broken = Path(folder, "tile_07.asc")
        broken.write_text(broken.read_text().replace("3", "33"))

        with gf.open(Path(folder, "work.db"), workers=2) as session:
            session.register(LandCover, ALL_HANDLERS)
            job = session.run("land_cover", folder=folder)
            print(job.status, "-", job.error)

            broken.write_text(broken.read_text().replace("33", "3"))
            print(job.retry_failed().result())
            print(job.tasks()["status"].value_counts().to_dict(), "in", len(job.attempts()), "attempts")


if __name__ == "__main__":
    main()
