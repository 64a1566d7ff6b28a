"""The job types of examples/geospatial as programs for a plain pool: the same functions, and nothing else.

*many* runs a function over a list and gives its results in order, as `ProcessPoolExecutor.map` does. Without more lines
than these the first error ends everything, what had been done is forgotten, and nothing can be looked at meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import create_h3_base as grid
import ingest_vector as vector
import process_large_raster as large
import process_raster_collection as collection
import zonal_stats as zonal

Many = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]


def process_large_raster(many: Many, raster: str, out: str, side: int = 5400) -> dict[str, Any]:
    given = {"raster": raster, "folder": raster, "out": out, "side": side}
    given |= {"crs": "EPSG:4326", "datetime": "2000-01-01T00:00:00+00:00"}
    Path(out).mkdir(parents=True, exist_ok=True)
    [scheme] = many(large.lay_out, [given])
    windows = [{"window": window, "raster": raster, "out": out} for window in scheme["result"]["windows"]]
    tiles = many(large.cut_window, windows)
    mosaic = many(large.make_mosaic, [{"previous_results": tiles, "job_parameters": given}])
    [made] = many(large.make_stac, [{"previous_results": mosaic, "job_parameters": given}])
    cogs = made["result"].pop("cogs")
    total = {name: sum(cog[name] for cog in cogs) for name in ("pixels", "ones", "weighed")}
    return {**made["result"], **total, "tiles": len(cogs)}


def process_raster_collection(many: Many, folder: str, out: str) -> dict[str, Any]:
    given = {"folder": folder, "out": out, "crs": "EPSG:4326", "datetime": "2000-01-01T00:00:00+00:00"}
    Path(out).mkdir(parents=True, exist_ok=True)
    [listed] = many(collection.list_rasters, [given])
    checked = many(
        collection.validate_raster, [{"raster": raster, "crs": given["crs"]} for raster in listed["result"]["rasters"]]
    )
    sound = [one["result"]["raster"] for one in checked if one["success"]]
    cogs = many(collection.make_cog, [{"raster": raster, "out": out} for raster in sound])
    mosaic = many(collection.make_mosaic, [{"previous_results": cogs, "job_parameters": given}])
    [made] = many(collection.make_stac, [{"previous_results": mosaic, "job_parameters": given}])
    return dict(made["result"])


def zonal_stats(many: Many, **given: Any) -> zonal.Table:
    params = zonal.Params(**given)
    [zones] = many(zonal.plan, [params])
    zones = sorted(zones, key=lambda zone: -zone.box)
    stats = many(partial(zonal.stat, p=params), zones)
    [table] = many(partial(zonal.table, p=params), [stats])
    return table


def ingest_vector(many: Many, **given: Any) -> dict[str, Any]:
    params = vector.Params(**given)
    [chunks] = many(vector.prepare, [params])
    parts = many(partial(vector.check, p=params), chunks)
    loaded = many(partial(vector.load, p=params), [parts])
    [made] = many(partial(vector.describe, p=params), loaded)
    return made


def create_h3_base(many: Many, **given: Any) -> grid.Grid:
    params = grid.Params(**given)
    parts = many(partial(grid.children, p=params), grid.plan())
    [made] = many(partial(grid.table, p=params), [parts])
    return made


def pooled(workers: int, program: Callable[..., Any], **given: Any) -> Any:
    """Run one of the programs above in a pool of the standard library's."""
    with ProcessPoolExecutor(workers, mp_context=get_context("forkserver")) as pool:
        return program(lambda function, items: list(pool.map(function, items)), **given)
