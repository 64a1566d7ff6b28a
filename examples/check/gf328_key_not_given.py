"""A handler reads a band that its plan does not give."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF328",)


def measure_a_band(params):
    return {"success": True, "result": {"tile": params["tile"], "band": params["band"], "high": 1.0}}


class BandElevation(Elevation):
    job_type = "band_elevation"


ALL_JOBS = {"band_elevation": BandElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_a_band}
