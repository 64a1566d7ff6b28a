"""A result has bounds as a tuple."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF309",)


def measure_bounds(params):
    return {"success": True, "result": {"tile": params["tile"], "high": 1.0, "bounds": (7.0, 46.0, 8.0, 47.0)}}


class TileBounds(Elevation):
    job_type = "tile_bounds"


ALL_JOBS = {"tile_bounds": TileBounds}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_bounds}
