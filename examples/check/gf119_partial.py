"""A handler is made of a function of two arguments."""

from functools import partial

from elevation import HANDLERS, Elevation

EXPECTED = ("GF119",)


def measure_band(params, band):
    return {"success": True, "result": {"tile": params["tile"], "band": band, "high": 1.0}}


class RedBand(Elevation):
    job_type = "red_band"


ALL_JOBS = {"red_band": RedBand}
ALL_HANDLERS = {**HANDLERS, "measure_tile": partial(measure_band, band=4)}
