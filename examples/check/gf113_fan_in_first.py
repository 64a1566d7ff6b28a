"""The job begins with a fan_in."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF113",)


class Overview(Elevation):
    job_type = "overview"
    stages = [{"number": 1, "name": "merge", "task_type": "merge_tiles", "parallelism": "fan_in"}]


ALL_JOBS = {"overview": Overview}
ALL_HANDLERS = HANDLERS
