"""Task ids do not say of which job they are."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF327",)


class Isolines(Elevation):
    job_type = "isolines"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return Elevation.create_tasks_for_stage(stage, job_params, "isolines", previous_results)


ALL_JOBS = {"isolines": Isolines}
ALL_HANDLERS = HANDLERS
