"""The job is registered under a name that was changed since."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF106",)


class BandStack(Elevation):
    job_type = "band_stack"


ALL_JOBS = {"stack_bands": BandStack}
ALL_HANDLERS = HANDLERS
