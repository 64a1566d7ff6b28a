"""Tasks are given the address of a bucket, and there are no credentials for it."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF128",)


class TileBucket(Elevation):
    job_type = "tile_bucket"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        tasks = Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        where = {"source": "/vsioss/tiles/heights.tif"}
        return [{**task, "parameters": {**task["parameters"], **where}} for task in tasks]


ALL_JOBS = {"tile_bucket": TileBucket}
ALL_HANDLERS = HANDLERS
