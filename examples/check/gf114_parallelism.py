"""A stage is parallel in a word of its own."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF114",)


class Reprojection(Elevation):
    job_type = "reprojection"
    stages = [
        Elevation.stages[0],
        {"number": 2, "name": "measure", "task_type": "measure_tile", "parallelism": "dynamic"},
        Elevation.stages[2],
    ]


ALL_JOBS = {"reprojection": Reprojection}
ALL_HANDLERS = HANDLERS
