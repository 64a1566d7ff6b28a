"""The plan's parameters have names of their own."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF104",)


class Watersheds(Elevation):
    job_type = "watersheds"

    @staticmethod
    def create_tasks_for_stage(stage_number, params, job_id, previous_results=None):
        return Elevation.create_tasks_for_stage(stage_number, params, job_id, previous_results)


ALL_JOBS = {"watersheds": Watersheds}
ALL_HANDLERS = HANDLERS
