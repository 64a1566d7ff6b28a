"""A result has the bytes of an image."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF308",)


def measure_and_draw(params):
    return {"success": True, "result": {"tile": params["tile"], "high": 1.0, "png": b"PNG"}}


class DrawnElevation(Elevation):
    job_type = "drawn_elevation"


ALL_JOBS = {"drawn_elevation": DrawnElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_and_draw}
