"""Rasters of which some are broken: each costs only itself and says why; of the others not one pixel changes."""

from __future__ import annotations

import importlib.util
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from tests.geospatial.conftest import EXAMPLES, Run, data

np = pytest.importorskip("numpy")
rasterio = pytest.importorskip("rasterio", reason='no rasterio: pip install "geoflow[raster]"')
rio_cogeo = pytest.importorskip("rio_cogeo", reason='no rio-cogeo: pip install "geoflow[raster]"')
pyproj = pytest.importorskip("pyproj", reason='no pyproj: pip install "geoflow[vector]"')
pytest.importorskip("geopandas", reason='no geopandas: pip install "geoflow[vector]"')
validation = pytest.importorskip("pystac.validation", reason='no pystac: pip install "geoflow[stac]"')
pytest.importorskip("jsonschema", reason='no jsonschema: pip install "geoflow[stac]"')

SIZE = (485, 373)
CHECKSUMS = [33_889, 34_964, 41_998]  # GDAL's, of the bands
MEANS = [109.12411, 105.28494, 87.92651]  # of the valid pixels
CODES = {
    "cut_in_half": "FILE_CORRUPT",
    "bits_flipped": "FILE_CORRUPT",
    "html": "FILE_UNREADABLE",
    "empty": "FILE_UNREADABLE",
    "no_crs": "CRS_MISSING",
    "other_crs": "CRS_MISMATCH",
    "float64": "BIT_DEPTH_POLICY_VIOLATION",
}


@pytest.fixture(scope="session")
def breaking() -> Any:
    spec = importlib.util.spec_from_file_location("break_rasters", EXAMPLES / "break_rasters.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_broken_rasters_cost_themselves_alone_and_the_mosaic_of_the_others_is_the_scene(
    run: Run, breaking: Any, tmp_path: Path
) -> None:
    scene, folder, out = data("rmnp-rgb"), tmp_path / "scenes", tmp_path / "collection"
    breaking.main(scene, str(folder))
    for broken in breaking.MORE:
        broken(folder / "strip_0.tif", folder / f"{broken.__name__}.tif")
    job = run("process_raster_collection", folder=str(folder), out=str(out))
    assert job.status == "completed", job.error
    assert job.with_errors
    assert job.stages()["completed"].tolist() == [1, 5, 5, 1, 1]

    failed = job.errors()
    assert dict(zip(failed["error"].str.partition(".tif")[0], failed["error_type"], strict=True)) == CODES
    assert not failed["error"].str.contains("previous exception").any()

    made = job.result()
    assert len(made["stac"]) == 6
    assert all(rio_cogeo.cog_validate(cog["cog"], quiet=True) == (True, [], []) for cog in made["cogs"])
    with rasterio.open(scene) as whole, rasterio.open(f"GTI:{made['mosaic']}") as mosaic:
        assert (whole.width, whole.height) == SIZE == (mosaic.width, mosaic.height)
        assert [whole.checksum(band) for band in whole.indexes] == CHECKSUMS
        assert [mosaic.checksum(band) for band in mosaic.indexes] == CHECKSUMS
        assert [mosaic.read(band, masked=True).mean() for band in (1, 2, 3)] == pytest.approx(MEANS, abs=5e-6)
    for path in made["stac"]:
        validation.validate_dict(json.loads(Path(path).read_text()))


def test_a_landsat_scene_in_metres_keeps_its_pixels_and_its_items_are_in_degrees(
    run: Run, breaking: Any, tmp_path: Path
) -> None:
    scene, folder = data("landsat"), tmp_path / "scenes"
    folder.mkdir()
    breaking.strips(scene, folder)
    made = run("process_raster_collection", folder=str(folder), out=str(tmp_path / "out"), crs="EPSG:31985").result()
    assert all(rio_cogeo.cog_validate(cog["cog"], quiet=True) == (True, [], []) for cog in made["cogs"])
    with rasterio.open(scene) as whole, rasterio.open(f"GTI:{made['mosaic']}") as mosaic:
        assert (mosaic.width, mosaic.height, mosaic.crs) == (349, 352, whole.crs)
        assert [mosaic.checksum(band) for band in mosaic.indexes] == [9513, 44443, 21073, 10806, 60959, 64219]
    item = json.loads(Path(made["cogs"][0]["cog"]).with_suffix(".json").read_text())
    validation.validate_dict(item)
    degrees = pyproj.Transformer.from_crs("EPSG:31985", "OGC:CRS84", always_xy=True)
    assert item["bbox"] == pytest.approx(degrees.transform_bounds(*made["cogs"][0]["bbox"]), abs=1e-6)


def test_the_geoid_in_strips_is_as_high_and_as_low_as_published_where_it_is(
    run: Run, breaking: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    breaking.strips(data("geoid"), folder)
    made = run("process_raster_collection", folder=str(folder), out=str(tmp_path / "out")).result()
    with rasterio.open(f"GTI:{made['mosaic']}") as mosaic:
        heights = mosaic.read(1)
        assert heights.shape == (721, 1440)
        for reached, height, at in (("argmin", -106.991, (78.75, 4.75)), ("argmax", 85.391, (147.25, -8.25))):
            row, column = np.unravel_index(getattr(heights, reached)(), heights.shape)
            assert heights[row, column] == pytest.approx(height, abs=5e-4)
            assert mosaic.xy(row, column) == pytest.approx(at)


def test_a_raster_that_is_mended_is_all_that_a_retry_reads_and_makes(run: Run, breaking: Any, tmp_path: Path) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    whole = breaking.strips(data("rmnp-rgb"), folder)
    sound = whole[2].read_bytes()
    breaking.bits_flipped(whole[2], whole[2])
    job = run("process_raster_collection", folder=str(folder), out=str(tmp_path / "collection"))
    assert [len(job.result()["cogs"]), len(job.errors())] == [4, 1]
    whole[2].write_bytes(sound)
    before = ran(job)
    job.retry_failed()
    made = job.result()
    assert not job.with_errors
    assert (made["width"], made["height"], len(made["cogs"])) == (*SIZE, 5)
    assert ran(job) - before == Counter(validate_raster=1, make_cog=1, make_mosaic=1, make_stac=1)


def ran(job: gf.JobHandle) -> Counter[str]:
    """How often handlers ran, by task type; what took over a result did not."""
    attempts = job.attempts()
    return Counter(attempts["task_type"][attempts["reused_from"].isna()])


naive = gf.JobType("naive", description="It reads rasters as most would: what rasterio raises is left alone.")


@naive.stage
def listed(p: dict) -> list[str]:
    return [str(path) for path in sorted(Path(p["folder"]).glob("*.tif"))]


@naive.each(listed, retries=0)
def mean(path: str) -> dict:
    with rasterio.open(path) as raster:
        return {"mean": float(raster.read(1, masked=True).mean())}


def test_S27_what_gdal_said_is_the_cause_where_rasterio_says_read_failed(
    breaking: Any, session: gf.Session, tmp_path: Path
) -> None:
    whole = breaking.strips(data("rmnp-rgb"), tmp_path)
    breaking.bits_flipped(whole[0], whole[0])
    breaking.cut_in_half(whole[1], whole[1])
    job = naive.run(folder=str(tmp_path), session=session)
    errors = job.errors().sort_values("task_index")
    assert errors["error"].tolist() == ["Read failed. See previous exception for details."] * 2
    assert errors["cause"].str.contains("ZIPDecode|TIFFReadEncodedStrip|TIFFFillStrip").all(), errors["cause"].tolist()
    assert "Decoding error at scanline 144" in str(job)
    places = [group.where or "" for group in job.runtime.snapshot(job.id).errors]
    assert all(where.startswith("mean in test_raster_collection.py") for where in places), "not in rasterio's Cython"
