"""`gf.JobType`: a job type of typed functions that can also be run, in the session of this process or another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from geoflow import api
from geoflow.executors.saved import load, save
from geoflow.jobtypes.typed import InputFile, OutputFile, TypedJob, identity, register_type
from geoflow.jobtypes.typed.foreign import Crossing, cross_by_default
from geoflow.notebook.mistakes import show_in_cells_as_text

if TYPE_CHECKING:
    from geoflow.job_handle import JobHandle
    from geoflow.session import Session

show_in_cells_as_text()
cross_by_default(
    Crossing(save, load),
    *("numpy.ndarray", "pandas.DataFrame", "pandas.Series", "geopandas.geodataframe.GeoDataFrame"),
    *("xarray.core.dataarray.DataArray", "xarray.core.dataset.Dataset", "zarr.core.array.Array"),
)

__all__ = ["InputFile", "JobType", "OutputFile", "identity", "register_type"]


class JobType(TypedJob):
    __doc__ = TypedJob.__doc__

    def run(self, params: Any = None, /, *, session: Session | None = None, **parameters: Any) -> JobHandle:
        """Run it as it is defined now, show its progress and wait; see `Session.run`, also for ``on_existing=``.

        The parameters are given by name, as one dict, or as an object of the class *params*. Without a *session* it
        runs in the one that ``gf.run`` uses.
        """
        return (session or api.default_session()).run(self, params, **parameters)

    def submit(self, params: Any = None, /, *, session: Session | None = None, **parameters: Any) -> JobHandle:
        """Start it as it is defined now and return at once; see `Session.submit`, and `run` for the parameters."""
        return (session or api.default_session()).submit(self, params, **parameters)
