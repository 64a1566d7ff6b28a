"""The name that `geoflow.jobtypes.typed` had in 0.1, for one release more: users, and cells in notebooks, type it."""

import sys
import warnings

import geoflow.jobtypes.typed

warnings.warn("geoflow.flow is now geoflow.jobtypes.typed: import that.", DeprecationWarning, stacklevel=2)
sys.modules[__name__] = geoflow.jobtypes.typed
