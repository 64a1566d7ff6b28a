"""A plan calls a function that its module does not have."""

import hashlib

from elevation import HANDLERS, Elevation

EXPECTED = ("GF333",)


class Hashed(Elevation):
    job_type = "hashed"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        name = hashlib.sha265(f"{job_id}|s{stage}".encode()).hexdigest()
        return [{"task_id": name, "task_type": "find_tiles", "parameters": job_params}]


ALL_JOBS = {"hashed": Hashed}
ALL_HANDLERS = HANDLERS
