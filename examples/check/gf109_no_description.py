"""Nothing says what the job does."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF109",)


class Ndvi(Elevation):
    job_type = "ndvi"
    description = None


ALL_JOBS = {"ndvi": Ndvi}
ALL_HANDLERS = HANDLERS
