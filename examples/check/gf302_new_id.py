"""The job id has the time in it."""

import hashlib
import time

from elevation import HANDLERS, Elevation

EXPECTED = ("GF302",)


class DailyComposite(Elevation):
    job_type = "daily_composite"

    @staticmethod
    def generate_job_id(params):
        return hashlib.sha256(f"daily_composite|{params}|{time.time_ns()}".encode()).hexdigest()


ALL_JOBS = {"daily_composite": DailyComposite}
ALL_HANDLERS = HANDLERS
