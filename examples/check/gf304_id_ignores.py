"""The job id leaves out the prefix."""

import hashlib

from elevation import HANDLERS, Elevation

EXPECTED = ("GF304",)


class GlacierRetreat(Elevation):
    job_type = "glacier_retreat"

    @staticmethod
    def generate_job_id(params):
        return hashlib.sha256(f"glacier_retreat|{','.join(params['tiles'])}".encode()).hexdigest()


ALL_JOBS = {"glacier_retreat": GlacierRetreat}
ALL_HANDLERS = HANDLERS
