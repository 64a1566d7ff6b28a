"""A handler ends its process, as one does that takes all memory."""

import os
import signal

from elevation import HANDLERS, Elevation

EXPECTED = ("GF903",)


def measure_all_at_once(params):
    os.kill(os.getpid(), signal.SIGKILL)


class WholeCountry(Elevation):
    job_type = "whole_country"


ALL_JOBS = {"whole_country": WholeCountry}
ALL_HANDLERS = {**HANDLERS, "measure_tile": measure_all_at_once}
