"""What the fork server imports, once for all workers that it starts."""

import gc
import os

gc.disable()  # imports make no garbage, and to look for it took a twentieth of the server's start

import concurrent.futures.process  # noqa: E402, F401 - what a worker is of, as all below
import multiprocessing.synchronize  # noqa: E402, F401

import geoflow.executors.spawning  # noqa: E402, F401
from geoflow.executors.child import DEFAULT_ENVIRONMENT  # noqa: E402

# What a session has it preload is imported next: a library that starts its threads then is to start as many as in a
# worker.
for _name, _value in DEFAULT_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
gc.freeze()  # what all workers share stays shared: none looks through it
gc.enable()
