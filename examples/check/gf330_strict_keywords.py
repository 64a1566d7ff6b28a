"""A handler passes all its parameters on by name."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF330",)


def measure_named(params):
    return measured(**params)


def measured(tile):
    return {"success": True, "result": {"tile": tile, "high": 1.0}}


class NamedElevation(Elevation):
    job_type = "named_elevation"


ALL_JOBS = {"named_elevation": NamedElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_named}
