"""A handler fails without a word."""

from elevation import HANDLERS, Elevation, measure_tile

EXPECTED = ("GF203",)


def measure_north(params):
    if params["tile"].startswith("s"):
        return {"success": False, "retryable": False}
    return measure_tile(params)


class NorthElevation(Elevation):
    job_type = "north_elevation"


ALL_JOBS = {"north_elevation": NorthElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_north}
