"""The job id is an MD5."""

import hashlib
import json

from elevation import HANDLERS, Elevation

EXPECTED = ("GF301",)


class Thumbnails(Elevation):
    job_type = "thumbnails"

    @staticmethod
    def generate_job_id(params):
        return hashlib.md5(f"thumbnails|{json.dumps(params, sort_keys=True)}".encode()).hexdigest()


ALL_JOBS = {"thumbnails": Thumbnails}
ALL_HANDLERS = HANDLERS
