"""A handler uses a name that nothing has defined."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF333",)


def measure_named(params):
    heights = {params["tile"]: round(HEIGHT)}  # noqa: F821
    return {"success": True, "result": {"tile": params["tile"], "high": heights[params["tile"]]}}


class NamedElevation(Elevation):
    job_type = "named_elevation"


ALL_JOBS = {"named_elevation": NamedElevation}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_named}
