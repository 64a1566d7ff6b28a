"""The plan takes no previous_results."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF103",)


class Mosaic(Elevation):
    job_type = "mosaic"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id):
        return Elevation.create_tasks_for_stage(stage, job_params, job_id)


ALL_JOBS = {"mosaic": Mosaic}
ALL_HANDLERS = HANDLERS
