"""A typed job type of xarray's objects and zarr's arrays."""

from __future__ import annotations

import numpy as np
import xarray as xr
import zarr

import geoflow as gf

cubes = gf.JobType("cubes")


@cubes.stage
def heights(params: dict[str, int]) -> xr.Dataset:
    values = np.arange(params["n"] * 2.0).reshape(params["n"], 2)
    return xr.Dataset({"height": (("y", "x"), values)}, attrs={"datum": "EGM96"})


@cubes.reduce(heights)
def rows(found: xr.Dataset) -> list[xr.DataArray]:
    return [row.assign_attrs(found.attrs) for row in found["height"]]


@cubes.each(rows)
def chunked(item: xr.DataArray) -> zarr.Array:
    return zarr.create_array(zarr.storage.MemoryStore(), data=item.values, chunks=(1,), attributes=item.attrs)


@cubes.reduce(chunked)
def total(found: list[zarr.Array]) -> dict[str, list[object]]:
    return {
        "sums": [float(np.asarray(each[:]).sum()) for each in found],
        "data": [each.attrs["datum"] for each in found],
    }
