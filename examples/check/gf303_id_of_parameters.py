"""The job id is the hash of the parameters alone."""

import hashlib
import json

from elevation import HANDLERS, Elevation

EXPECTED = ("GF303",)


class CoastLine(Elevation):
    job_type = "coast_line"

    @staticmethod
    def generate_job_id(params):
        return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()


ALL_JOBS = {"coast_line": CoastLine}
ALL_HANDLERS = HANDLERS
