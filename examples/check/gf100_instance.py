"""The dict of jobs holds an object of the class."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF100",)


class Aspect(Elevation):
    job_type = "aspect"


ALL_JOBS = {"aspect": Aspect()}
ALL_HANDLERS = HANDLERS
