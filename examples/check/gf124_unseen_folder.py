"""A stage that reuses results is given a folder, and nobody looks into it."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF122", "GF124")


class TileUnseenFolder(Elevation):
    job_type = "tile_unseen_folder"
    stages = [Elevation.stages[0], {**Elevation.stages[1], "reuse": True}, Elevation.stages[2]]

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        tasks = Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        return [{**task, "parameters": {**task["parameters"], "folder": "/"}} for task in tasks]


ALL_JOBS = {"tile_unseen_folder": TileUnseenFolder}
ALL_HANDLERS = HANDLERS
