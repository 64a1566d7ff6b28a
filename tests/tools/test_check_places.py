"""`gf.check` on what handlers say of files: what goes wrong elsewhere is told, and nothing that may be meant."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.tools.check.places import lacking, places


@pytest.fixture(autouse=True)
def _nobodys_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("address", "environment", "told"),
    [
        ("/vsis3/bucket/tile.tif", {}, "/vsis3/…, and the environment has neither AWS_ACCESS_KEY_ID nor AWS_PROFILE"),
        ("/vsizip//vsigs_streaming/b/t.zip", {"AWS_PROFILE": "me"}, "/vsigs_streaming/…"),
        ("az://container/tile.tif", {}, "AZURE_STORAGE_CONNECTION_STRING nor AZURE_STORAGE_ACCOUNT"),
        ("/vsiadls/container/tile.tif", {"AZURE_STORAGE_ACCOUNT": "me"}, None),
        ("s3://bucket/tile.tif", {"AWS_NO_SIGN_REQUEST": "YES"}, None),
        ("s3://bucket/tile.tif", {"GDAL_CONFIG_FILE": "gdalrc"}, None),
        ("/vsicurl/https://example.org/tile.tif", {}, None),
        ("Read from /vsis3/bucket/tile.tif.", {}, None),
        ("/data/s3/tile.tif", {}, None),
    ],
)
def test_an_address_is_told_where_nothing_has_its_credentials(address: str, environment: Any, told: str | None) -> None:
    found = lacking(address, environment)
    assert found is None if told is None else told in (found or "")


def test_credentials_may_be_in_a_file_of_the_home(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").touch()
    assert lacking("s3://bucket/tile.tif", {}) is None


def found(body: str) -> list[str]:
    (function,) = ast.parse(f"def handler(params):\n    {body}").body
    assert isinstance(function, ast.FunctionDef)
    return [code for code, _, _ in places("It", function)]


@pytest.mark.parametrize(
    "body",
    [
        "return open('out/log.txt', 'w')",
        "return rasterio.open(f'data/{params[0]}.tif')",
        "return gpd.read_file('tiles.gpkg')",
        "return [Path('../tiles') / name for name in params]",
    ],
)
def test_a_path_of_the_current_folder_is_told(body: str) -> None:
    assert found(body) == ["GF127"]


@pytest.mark.parametrize(
    "body",
    [
        "return open('/data/log.txt')",
        "return open(f\"{params['folder']}/log.txt\")",
        "return archive.open('inside/the.zip')",
        "return rasterio.open('GTI:index.gti.gpkg')",
        "return gpd.read_file('https://example.org/tiles.gpkg')",
        "return Path('~/tiles.tif').expanduser()",
        "return Path(__file__).parent / 'tiles.tif'",
        "return params['data/tiles.tif']",
        "return gpd.read_file(path, layer='tiles.gpkg')",
        "with rasterio.Env(aws_unsigned=True):\n        return rasterio.open('/vsis3/bucket/tile.tif')",
    ],
)
def test_what_may_be_meant_is_not_told(body: str) -> None:
    assert found(body) == []


def test_an_address_in_the_text_is_told_with_its_prefix_alone() -> None:
    assert found("return rasterio.open('/vsioss/bucket/tile.tif')") == ["GF128"]


@pytest.fixture
def handlers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with datasets that it has opened, of a file that is there."""
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "tile.tif"
    with rasterio.open(path, "w", driver="GTiff", width=2, height=2, count=1, dtype="uint8", crs="EPSG:4326"):
        pass
    (tmp_path / "opened_tiles.py").write_text(
        f"""
import rasterio

TILE = rasterio.open({str(path)!r})


def at_import(params):
    return {{"success": True, "result": {{"sum": int(TILE.read(1).sum())}}}}


def made():
    tile = rasterio.open({str(path)!r})

    def in_closure(params):
        return {{"success": True, "result": {{"sum": int(tile.read(1).sum())}}}}

    return in_closure
"""
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = __import__("opened_tiles")
    yield module
    module.TILE.close()
    del sys.modules["opened_tiles"]


class Sums(gf.JobBase):
    job_type = "sums"
    description = "The sum of a tile."
    stages = [{"number": 1, "name": "sum", "task_type": "sum", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params: Any) -> Any:
        return {}

    @staticmethod
    def generate_job_id(params: Any) -> str:
        return "5" * 64

    @staticmethod
    def create_tasks_for_stage(stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
        return [{"task_id": f"{job_id[:8]}-sum", "task_type": "sum", "parameters": {}}]

    @staticmethod
    def finalize_job(context: Any = None) -> Any:
        return {}


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_an_open_dataset_is_told_in_a_closure_and_in_a_module(handlers: Any) -> None:
    closure = gf.check(Sums, {"sum": handlers.made()}, run=False)
    assert [(each.code, "'tile', a DatasetReader" in each.what) for each in closure.findings if each.code < "GF2"] == [
        ("GF118", True)
    ]
    module = gf.check(Sums, {"sum": handlers.at_import}, run=False)
    assert [(each.code, "'TILE', a DatasetReader" in each.what) for each in module.findings if each.code < "GF2"] == [
        ("GF126", True)
    ]
