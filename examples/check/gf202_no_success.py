"""A handler returns its result alone."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF202",)


def measure_plainly(params):
    return {"tile": params["tile"], "high": 4634.0}


class PlainElevation(Elevation):
    job_type = "plain_elevation"


ALL_JOBS = {"plain_elevation": PlainElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_plainly}
