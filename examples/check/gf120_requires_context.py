"""A handler logs with the context that only geoflow gives."""

from elevation import HANDLERS, Elevation, measure_tile

EXPECTED = ("GF120",)


def measure_logged(params, context):
    context.logger.info("measuring %s", params["tile"])
    return measure_tile(params)


class ElevationLogged(Elevation):
    job_type = "elevation_logged"


ALL_JOBS = {"elevation_logged": ElevationLogged}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_logged}
