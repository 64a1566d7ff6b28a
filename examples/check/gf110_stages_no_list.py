"""Stages are given by name."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF110",)


class Footprints(Elevation):
    job_type = "footprints"
    stages = {"find": "find_tiles", "measure": "measure_tile"}


ALL_JOBS = {"footprints": Footprints}
ALL_HANDLERS = HANDLERS
