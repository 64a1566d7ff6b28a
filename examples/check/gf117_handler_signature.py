"""A handler takes its parameters one by one."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF117",)


def measure_tile(tile, band, folder):
    return {"success": True, "result": {"tile": tile, "band": band, "folder": folder}}


class BandMeans(Elevation):
    job_type = "band_means"


ALL_JOBS = {"band_means": BandMeans}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_tile}
