"""A handler holds a lock of the process that made it."""

import threading

from elevation import HANDLERS, Elevation, measure_tile

EXPECTED = ("GF118",)


def one_at_a_time():
    lock = threading.Lock()

    def measure_locked(params):
        with lock:
            return measure_tile(params)

    return measure_locked


class PostgisLoad(Elevation):
    job_type = "postgis_load"


ALL_JOBS = {"postgis_load": PostgisLoad}
ALL_HANDLERS = {**HANDLERS, "measure_tile": one_at_a_time()}
