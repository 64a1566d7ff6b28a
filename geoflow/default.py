"""The name that `geoflow.api` had in 0.1, for one release more: users, and cells in notebooks, type it."""

import sys
import warnings

import geoflow.api

warnings.warn("geoflow.default is now geoflow.api: import that.", DeprecationWarning, stacklevel=2)
sys.modules[__name__] = geoflow.api
