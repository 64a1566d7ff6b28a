"""The last handler was not added to the dict."""

from elevation import Elevation, find_tiles, measure_tile

EXPECTED = ("GF112",)


class RoadBuffers(Elevation):
    job_type = "road_buffers"


ALL_JOBS = {"road_buffers": RoadBuffers}
ALL_HANDLERS = {"find_tiles": find_tiles, "measure_tile": measure_tile}
