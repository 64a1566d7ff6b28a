"""933 million pixels in windows: as many are land as all together have, by as much of the Earth as is land."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.geospatial.conftest import LAND, Run

rasterio = pytest.importorskip("rasterio", reason='no rasterio: pip install "geoflow[raster]"')
rio_cogeo = pytest.importorskip("rio_cogeo", reason='no rio-cogeo: pip install "geoflow[raster]"')
pytest.importorskip("geopandas", reason='no geopandas: pip install "geoflow[vector]"')
pytest.importorskip("pystac", reason='no pystac: pip install "geoflow[stac]"')
pytest.importorskip("jsonschema", reason='no jsonschema: pip install "geoflow[stac]"')

EARTH_KM2 = 510_065_621.724  # a sphere's, as H3 has it


@pytest.mark.slow
def test_the_whole_earth_in_32_tiles_has_its_land(run: Run, tmp_path: Path) -> None:
    job = run("process_large_raster", raster=str(LAND), out=str(tmp_path))
    assert job.status == "completed", job.error
    made = job.result()
    assert (made["tiles"], made["pixels"], made["ones"]) == (32, 43_200 * 21_600, 309_568_712)
    assert (made["width"], made["height"], len(made["stac"])) == (43_200, 21_600, 33)
    step = math.radians(1 / 120)
    of_the_sphere = made["weighed"] * step * 2 * math.sin(step / 2) / (4 * math.pi)
    assert of_the_sphere == pytest.approx(0.289053, abs=5e-7)
    assert of_the_sphere * EARTH_KM2 == pytest.approx(147_362_825, rel=0.0005)  # the countries of Natural Earth
    with rasterio.open(f"GTI:{made['mosaic']}") as mosaic, rasterio.open(LAND) as whole:
        across_four_tiles = rasterio.windows.Window(21_000, 10_200, 1200, 1200)
        assert (mosaic.read(1, window=across_four_tiles) == whole.read(1, window=across_four_tiles)).all()
    cog = str(tmp_path / "r05400_c21600.tif")
    assert rio_cogeo.cog_validate(cog, quiet=True) == (True, [], [])


def cut(path: Path, **otherwise: object) -> int:
    """1,300 × 1,100 pixels of Central America, written to *path*; how many of them are land."""
    with rasterio.open(LAND) as whole:
        window = rasterio.windows.Window(11_400, 9_600, 1300, 1100)
        laid = {"width": 1300, "height": 1100, "transform": whole.window_transform(window)}
        pixels = whole.read(1, window=window)
        with rasterio.open(path, "w", **(whole.profile | laid | otherwise)) as made:
            made.write(pixels, 1)
    return int(pixels.sum())


def test_windows_at_the_edges_are_as_large_as_they_are_and_no_pixel_is_counted_twice(run: Run, tmp_path: Path) -> None:
    raster, out = tmp_path / "part.tif", tmp_path / "tiles"
    land = cut(raster)
    made = run("process_large_raster", raster=str(raster), out=str(out), side=512).result()
    assert (made["tiles"], made["pixels"], made["ones"]) == (9, 1300 * 1100, land)
    with rasterio.open(f"GTI:{made['mosaic']}") as mosaic, rasterio.open(raster) as whole:
        assert (mosaic.read() == whole.read()).all()
    assert len(list(out.glob("r*.tif"))) == 9


def test_a_raster_without_latitudes_is_refused_by_its_code(run: Run, tmp_path: Path) -> None:
    cut(tmp_path / "utm.tif", crs="EPSG:32616")
    job = run("process_large_raster", raster=str(tmp_path / "utm.tif"), out=str(tmp_path / "tiles"))
    assert job.errors()["error_type"].tolist() == ["CRS_MISMATCH"]
    assert "its CRS has no latitudes: EPSG:32616" in str(job.error)
