"""The same work as programs for a plain pool, beside which docs/geospatial.md has figures, comes to the same."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.geospatial.conftest import EXAMPLES, LAND, Run, data
from tests.geospatial.test_large_raster import cut

pytest.importorskip("exactextract", reason='no exactextract: pip install "geoflow[zonal]"')
pytest.importorskip("h3", reason='no h3: pip install "geoflow[h3]"')


def given(name: str, folder: Path) -> dict[str, Any]:
    out = folder / "made"
    if name == "process_large_raster":
        cut(folder / "part.tif")
        return {"raster": str(folder / "part.tif"), "out": str(out), "side": 700}
    if name == "process_raster_collection":
        cut(folder / "part.tif")
        import_module("break_rasters").main(str(folder / "part.tif"), str(folder / "strips"))
        return {"folder": str(folder / "strips"), "out": str(out)}
    if name == "zonal_stats":
        return {"zones": data("countries"), "raster": str(LAND), "out": out, "only": ["Panama", "Bahamas"]}
    if name == "ingest_vector":
        return {"source": data("tokyo"), "folder": out, "invalid": "repair"}
    return {"out": out, "resolution": 1, "land": data("countries")}


@pytest.mark.parametrize(
    "name",
    ["process_large_raster", "process_raster_collection", "zonal_stats", "ingest_vector", "create_h3_base"],
)
def test_a_program_for_a_pool_makes_what_the_job_type_makes(
    name: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    program = getattr(import_module("benchmarks.geospatial_pool"), name)
    parameters = given(name, tmp_path)
    made = program(lambda function, items: list(map(function, items)), **parameters)
    as_json = json.loads(json.dumps(made if isinstance(made, dict) else made.model_dump()))
    job = run(name, **parameters)
    assert job.result() == as_json, job.error
