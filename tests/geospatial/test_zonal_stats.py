"""Zonal statistics of real zones: shares that rasterstats confirms, and a partition that leaves no pixel out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from tests.geospatial.conftest import EXAMPLES, LAND, Run, data

pd = pytest.importorskip("pandas")
geopandas = pytest.importorskip("geopandas", reason='no geopandas: pip install "geoflow[geo]"')
rasterio = pytest.importorskip("rasterio", reason='no rasterio: pip install "geoflow[geo]"')
pytest.importorskip("exactextract", reason="no exactextract: pip install exactextract")
pytest.importorskip("pyarrow", reason="no pyarrow: pip install pyarrow")

# The share of each that is land.
COUNTRIES = {"Indonesia": 0.9509, "Chile": 0.9049, "Bolivia": 1.0, "Panama": 0.95698, "Bahamas": 0.5546}


def test_the_land_of_countries_is_as_rasterstats_says(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "stats.parquet"
    job = run("zonal_stats", zones=data("countries"), raster=str(LAND), out=str(out), only=list(COUNTRIES))
    assert job.status == "completed", job.error
    table = pd.read_parquet(out).set_index("name")
    assert table["mean"].to_dict() == pytest.approx(COUNTRIES, abs=5e-5)
    assert table["count"]["Panama"] == pytest.approx(89_010.5, abs=0.5)
    assert job.result()["zones"] == 5

    second = pytest.importorskip("rasterstats", reason="no rasterstats: pip install rasterstats")
    zones = geopandas.read_file(data("countries")).set_index("name").loc[["Bolivia", "Panama"]]
    by_rasterstats = second.zonal_stats(zones, str(LAND), stats="mean count", nodata=255)
    assert [one["mean"] for one in by_rasterstats] == pytest.approx([1.0, 0.95707], abs=5e-6)
    assert [one["mean"] for one in by_rasterstats] == pytest.approx(table["mean"][zones.index].tolist(), abs=1e-4)
    assert by_rasterstats[1]["count"] == 89_011


def test_zones_start_with_the_largest_bounding_box_whatever_their_place_in_the_file(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"zones": data("countries"), "raster": str(LAND), "out": str(tmp_path / "stats.parquet")}
    with gf.open(tmp_path / "work.db", workers=1, display="none") as session:
        session.register(EXAMPLES / "zonal_stats.py")
        job = session.run("zonal_stats", **asked, only=["Bahamas", "Bolivia", "Panama"])
        tasks = job.tasks()
    zones = tasks[tasks["stage_name"] == "stat"]
    items = zones.assign(name=zones["parameters"].map(lambda given: given["item"]["name"]))
    assert items["name"].tolist() == ["Bahamas", "Bolivia", "Panama"]
    assert items.sort_values("started_at")["name"].tolist() == ["Bolivia", "Panama", "Bahamas"]


def test_counties_share_out_all_valid_pixels_of_the_heights_and_those_elsewhere_have_none(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "stats.parquet"
    heights = data("rmnp-dem")
    job = run("zonal_stats", zones=data("colorado-counties"), raster=heights, out=str(out))
    assert job.status == "completed", job.error
    table = pd.read_parquet(out)
    assert len(table) == 64
    there = table[table["count"] > 0].set_index("name")
    with rasterio.open(heights) as raster:
        assert (raster.read_masks(1) > 0).sum() == 28_424
    assert there["count"].sum() == pytest.approx(28_424.0, abs=0.05)
    assert len(there) == 4
    means = there["mean"][["Larimer", "Grand", "Boulder"]].tolist()
    assert means == pytest.approx([3133.1, 3103.2, 3057.1], abs=0.05)
    assert there["max"]["Boulder"] == 4261
    assert table[table["count"] == 0]["mean"].isna().all()


def test_zones_without_a_crs_are_refused_by_name(run: Run, tmp_path: Path) -> None:
    counties = data("counties")
    job = run("zonal_stats", zones=counties, raster=str(LAND), out=str(tmp_path / "none.parquet"), by="NAME")
    assert job.status == "failed"
    assert job.errors()["error_type"].tolist() == ["CrsMissing"]
    assert f"{counties} says no CRS" in str(job.error)
