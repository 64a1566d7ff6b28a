"""The job type is written as a title."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF108",)


class RasterToCog(Elevation):
    job_type = "Raster-To-COG"


ALL_JOBS = {"Raster-To-COG": RasterToCog}
ALL_HANDLERS = HANDLERS
