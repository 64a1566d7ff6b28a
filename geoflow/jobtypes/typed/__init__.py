"""The front door for notebooks: typed functions become a job type as the contract wants it."""

from __future__ import annotations

from geoflow.jobtypes.typed.crossing import identity
from geoflow.jobtypes.typed.files import InputFile, OutputFile
from geoflow.jobtypes.typed.foreign import register_type
from geoflow.jobtypes.typed.jobtype import TypedJob

__all__ = ["InputFile", "OutputFile", "TypedJob", "identity", "register_type"]
