"""What the fork server imports, once for all workers that it starts."""

import gc

gc.disable()  # imports make no garbage, and to look for it took a twentieth of the server's start

import concurrent.futures.process  # noqa: E402, F401 - what a worker is of, as all below
import multiprocessing.synchronize  # noqa: E402, F401

import geoflow.executors.child  # noqa: E402
import geoflow.executors.spawning  # noqa: E402, F401

gc.freeze()  # what all workers share stays shared: none looks through it
gc.enable()
