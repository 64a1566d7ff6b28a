"""The plan divides the tiles among more workers than there are."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF331",)


class Batches(Elevation):
    job_type = "batches"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        if len(job_params["tiles"]) // 10 == 0:
            raise RuntimeError("too few tiles for batches of ten")
        return Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)


ALL_JOBS = {"batches": Batches}
ALL_HANDLERS = HANDLERS
