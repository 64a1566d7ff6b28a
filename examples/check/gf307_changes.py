"""A result has a date, and a mean that may be NaN."""

import math
from datetime import date

from elevation import HANDLERS, Elevation

EXPECTED = ("GF307",)


def measure_dated(params):
    result = {"tile": params["tile"], "high": 1.0, "mean": math.nan, "day": date(2025, 11, 3)}
    return {"success": True, "result": result}


class DatedElevation(Elevation):
    job_type = "dated_elevation"


ALL_JOBS = {"dated_elevation": DatedElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_dated}
