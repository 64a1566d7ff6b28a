"""finalize_job is the abstract one of the base class."""

from elevation import HANDLERS, Elevation

import geoflow as gf

EXPECTED = ("GF101",)


class Contours(Elevation):
    job_type = "contours"
    finalize_job = gf.JobBase.__dict__["finalize_job"]


ALL_JOBS = {"contours": Contours}
ALL_HANDLERS = HANDLERS
