"""A handler fails for good, and does not say so."""

from elevation import HANDLERS, Elevation, measure_tile

EXPECTED = ("GF204",)


def measure_east(params):
    if "w" in params["tile"]:
        return {"success": False, "error": f"{params['tile']} is west of Greenwich"}
    return measure_tile(params)


class EastElevation(Elevation):
    job_type = "east_elevation"


ALL_JOBS = {"east_elevation": EastElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_east}
