"""The job type has a name with a space in it."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF106",)


class CloudMasks(Elevation):
    job_type = "cloud masks"


ALL_JOBS = {"cloud masks": CloudMasks}
ALL_HANDLERS = HANDLERS
