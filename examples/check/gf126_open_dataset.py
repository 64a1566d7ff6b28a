"""A handler asks a table that its module has opened."""

import sqlite3

from elevation import HANDLERS, Elevation, measure_tile

EXPECTED = ("GF126",)
TABLE = sqlite3.connect(":memory:")


def measure_known(params):
    TABLE.execute("SELECT 1")
    return measure_tile(params)


class TileTable(Elevation):
    job_type = "tile_table"


ALL_JOBS = {"tile_table": TileTable}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_known}
