"""A handler looks for a file in the folder that it happens to be started in."""

from pathlib import Path

from elevation import HANDLERS, Elevation, measure_tile

EXPECTED = ("GF127",)


def measure_unless_known(params):
    known = Path("data/heights.json")
    return measure_tile(params) if not known.exists() else {"success": True, "result": {"tile": params["tile"]}}


class TileCache(Elevation):
    job_type = "tile_cache"


ALL_JOBS = {"tile_cache": TileCache}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_unless_known}
