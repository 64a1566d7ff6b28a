"""The name that `geoflow.job_type` had in 0.1, for one release more: users, and cells in notebooks, type it."""

import sys
import warnings

import geoflow.job_type

warnings.warn("geoflow.flow is now geoflow.job_type: import that.", DeprecationWarning, stacklevel=2)
sys.modules[__name__] = geoflow.job_type
