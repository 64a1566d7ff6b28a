"""What the fork server imports, once for all workers that it starts."""

import gc

gc.disable()  # imports make no garbage, and to look for it took a twentieth of the server's start

import geoflow.executors.child  # noqa: E402, F401 - what it is imported for

gc.freeze()  # what all workers share stays shared: none looks through it
gc.enable()
