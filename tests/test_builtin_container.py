"""list_container_contents on real files, stage by stage, with JSON between the stages as in the engine."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import lzma
import os
import py_compile
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
import uuid
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from geoflow.builtin import list_container_contents as module
from geoflow.builtin.list_container_contents import (
    ALL_HANDLERS,
    ANALYSE,
    LIST,
    SUMMARISE,
    ListContainerContents,
    analyse_file,
    kind,
    list_container,
    suffix,
    summarise_container,
)
from geoflow.contract import Registry, task_id
from geoflow.errors import ResourceNotFoundError
from geoflow.models import JobExecutionContext, TaskResult, TaskStatus

JOB = "c" * 64
posix = pytest.mark.skipif(os.name != "posix", reason="FIFOs, sockets and undecodable names are POSIX")


def through_json(value: Any) -> Any:
    """*value* as the next stage sees it; fails on lone surrogates, as a store or a strict encoder would."""
    return json.loads(json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8"))


def params(**given: Any) -> dict[str, Any]:
    return through_json(ListContainerContents.validate_job_parameters(given))


def listed(given: dict[str, Any]) -> dict[str, Any]:
    [task] = ListContainerContents.create_tasks_for_stage(1, given, JOB)
    return through_json(list_container(task["parameters"]))


def plan(given: dict[str, Any], listing: dict[str, Any]) -> list[dict[str, Any]]:
    return through_json(ListContainerContents.create_tasks_for_stage(2, given, JOB, [listing]))


class Run:
    """A whole job, called by hand: ``rows`` and ``failures`` of stage 2, and finalize's ``summary``."""

    def __init__(self, container: Any, **given: Any) -> None:
        self.params = params(container=container, **given)
        self.listing = listed(self.params)
        self.tasks = plan(self.params, self.listing)
        outcomes = [through_json(analyse_file(task["parameters"])) for task in self.tasks]
        self.rows = {row["path"]: row for row in (o["result"] for o in outcomes if o["success"])}
        self.failures = [outcome for outcome in outcomes if not outcome["success"]]
        completed = [(LIST, self.listing), *((ANALYSE, outcome) for outcome in outcomes if outcome["success"])]
        aggregate = {
            "previous_results": [outcome for outcome in outcomes if outcome["success"]],
            "job_parameters": self.params,
            "aggregation_metadata": {"stage": 3, "previous_stage": 2, "result_count": 1, "pattern": "fan_in"},
        }
        completed.append((SUMMARISE, through_json(summarise_container(aggregate))))
        self.summary = through_json(ListContainerContents.finalize_job(self.context(completed)))

    def context(self, completed: list[tuple[str, dict[str, Any]]]) -> JobExecutionContext:
        return JobExecutionContext(
            job_id=JOB,
            job_type="list_container_contents",
            current_stage=3,
            total_stages=3,
            parameters=self.params,
            task_results=[
                TaskResult(task_id=str(i), task_type=name, status=TaskStatus.COMPLETED, result_data=data)
                for i, (name, data) in enumerate(completed)
            ],
        )


@pytest.fixture
def memory() -> Iterator[str]:
    """A folder of its own in the memory file system of this process."""
    fsspec = pytest.importorskip("fsspec")
    folder = f"/test-{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    fs.pipe({f"{folder}/a.json": b'{"a": 1}', f"{folder}/deep/er/b.TIF": b"II*\0" + bytes(20)})
    yield f"memory:/{folder}"
    fs.rm(folder, recursive=True)


# The contract


def test_S5_the_module_registers_whole_and_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Registry().register(module) == ["list_container_contents"]
    assert {stage["task_type"] for stage in ListContainerContents.stages} == set(ALL_HANDLERS)


def test_S7_a_local_container_becomes_absolute_so_that_all_workers_agree(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    absolute = str(tmp_path / "data")
    for given in ("data", "./data/", absolute, tmp_path / "data", f"file://{absolute}"):
        assert params(container=given)["container"] == absolute


# Folders


@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("find"), reason="needs GNU find")
def test_every_file_is_a_row_and_files_and_bytes_are_those_of_find():
    folder = Path(json.__file__).parents[1] / "email"
    sizes = subprocess.run(
        ["find", folder, "-type", "f", "-printf", "%s\n"], check=True, capture_output=True, text=True
    ).stdout.split()
    run = Run(folder)
    assert len(sizes) > 20
    assert len(run.rows) == run.summary["files"] == len(sizes)
    assert run.summary["bytes"] == sum(map(int, sizes))
    assert run.summary["by_suffix"][".py"]["count"] == len(list(folder.rglob("*.py")))
    assert sum(total["count"] for total in run.summary["by_kind"].values()) == len(sizes)


@pytest.mark.parametrize(
    "name", ["Größe 測定 🛰.txt", "two\nlines.txt", "'quotes\" & <b>.txt", " space ", "%s{name}$HOME", "-rf"]
)
def test_odd_names_are_shown_as_they_are(tmp_path, name):
    try:
        (tmp_path / name).write_text("x")
    except OSError:
        pytest.skip("not a name on this file system")
    run = Run(tmp_path, sha256=True)
    assert list(run.rows) == [name]
    assert run.summary["error_count"] == 0


@posix
def test_undecodable_names_and_their_literal_twins_are_told_apart_and_all_are_read(tmp_path):
    names = [b"caf\xe9.txt", b"caf\\udce9.txt", b"caf\xc3\xa9.txt", b"d\xff/\xfe"]
    try:
        for name in names:
            path = os.path.join(os.fsencode(tmp_path), name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(name)
    except OSError:
        pytest.skip("the file system accepts only UTF-8 names")
    run = Run(tmp_path, sha256=True)
    assert set(run.rows) == {"caf\\udce9.txt", "caf\\\\udce9.txt", "café.txt", "d\\udcff/\\udcfe"}
    assert run.summary["error_count"] == 0
    assert {row["sha256"] for row in run.rows.values()} == {hashlib.sha256(name).hexdigest() for name in names}
    assert len({task["task_id"] for task in run.tasks}) == 4


def test_sha256_is_streamed_and_right_across_block_borders(tmp_path):
    for size in (0, 1, module.HEAD, module.HEAD + module.BLOCK, 3 * module.BLOCK + 7):
        (tmp_path / f"{size}.bin").write_bytes(os.urandom(size))
    rows = Run(tmp_path, sha256=True).rows
    assert len(rows) == 5
    for path, row in rows.items():
        assert row["sha256"] == hashlib.sha256((tmp_path / path).read_bytes()).hexdigest()
    assert all("sha256" not in row for row in Run(tmp_path).rows.values())


# Zip files and URLs


def test_a_zip_file_is_a_container_and_damage_is_reported_by_member(tmp_path):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/ä.json", '{"a": 1}')
        archive.writestr("empty.txt", "")
        archive.writestr("bad.bin", os.urandom(5000), zipfile.ZIP_STORED)
        offset = archive.getinfo("bad.bin").header_offset
    with open(path, "r+b") as file:
        file.seek(offset + 100)
        file.write(b"damage")
    run = Run(path, sha256=True)
    assert list(run.rows) == ["bad.bin", "empty.txt", "folder/ä.json"]
    assert (run.summary["files"], run.summary["bytes"], run.summary["unreadable"]) == (3, 5008, 1)
    assert "Bad CRC-32" in run.summary["errors"][0]["error"]
    assert run.rows["folder/ä.json"]["kind"] == "json"
    assert run.rows["folder/ä.json"]["sha256"] == hashlib.sha256(b'{"a": 1}').hexdigest()


def test_an_archive_written_anew_under_its_name_is_not_read_from_a_cache(tmp_path):
    path = tmp_path / "data.zip"
    for text in ("first", "and second"):
        digest = hashlib.sha256(text.encode()).hexdigest()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("in/a.txt", text)
        for container in (path, f"zip://in::{path}", f"zip://::file://{path}"):
            assert [row["sha256"] for row in Run(container, sha256=True).rows.values()] == [digest]


def test_a_url_is_a_container(memory):
    run = Run(memory, sha256=True)
    assert {path: row["kind"] for path, row in run.rows.items()} == {"a.json": "json", "deep/er/b.TIF": "tiff"}
    assert run.summary["bytes"] == 32
    assert run.rows["a.json"]["sha256"] == hashlib.sha256(b'{"a": 1}').hexdigest()


@pytest.fixture
def flaky() -> str:
    """A remote store in which one folder is forbidden and one file's connection breaks."""
    fsspec = pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    class Flaky(MemoryFileSystem):  # type: ignore[misc]
        protocol = "flaky"
        store: dict[str, Any] = {}
        pseudo_dirs = [""]

        def ls(self, path: str, detail: bool = True, **options: Any) -> Any:
            if path.endswith("/secret"):
                raise PermissionError(13, "Permission denied")
            return super().ls(path, detail, **options)

        def _open(self, path: str, *arguments: Any, **options: Any) -> Any:
            if path.endswith("/breaks"):
                raise ConnectionResetError("Connection reset by peer")
            return super()._open(path, *arguments, **options)

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return super()._strip_protocol(path.removeprefix("flaky:/"))

    fsspec.register_implementation("flaky", Flaky, clobber=True)
    Flaky.store, Flaky.pseudo_dirs = {}, [""]
    Flaky().pipe({"/top/fine": b"fine"})
    Flaky().pipe({"/top/secret/a": b"a"})
    return "flaky://top"


# Kinds and suffixes


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.TIF", ".tif"),
        ("data.tar.gz", ".tar.gz"),
        ("DATA.TAR.BZ2", ".tar.bz2"),
        ("table.csv.gz", ".gz"),
        ("v1.2/README", ""),
        (".bashrc", ""),
        ("x.tar", ".tar"),
        ("", ""),
    ],
)
def test_suffixes_are_lower_case_and_compressed_tar_files_keep_both(name, expected):
    assert suffix(name) == expected


def geopackage(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"pragma application_id = {int.from_bytes(b'GPKG', 'big')}")
        connection.execute("create table gpkg_contents (table_name text)")
    connection.close()


def plain_sqlite(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
    connection.close()


def bytecode(path: Path) -> None:
    source = path.with_suffix(".py")
    source.write_text("x = 1\n")
    py_compile.compile(str(source), cfile=str(path), doraise=True)


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as writer:
        writer.writestr("a", "a")


def tar(path: Path) -> None:
    source = path.with_name("source")
    source.write_text("a")
    with tarfile.open(path, "w") as writer:
        writer.add(source, "a")


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (geopackage, "geopackage"),
        (plain_sqlite, "sqlite"),
        (bytecode, "python bytecode"),
        (archive, "zip"),
        (tar, "tar"),
        (lambda path: path.write_bytes(gzip.compress(b"a")), "gzip"),
        (lambda path: path.write_bytes(bz2.compress(b"a")), "bzip2"),
        (lambda path: path.write_bytes(lzma.compress(b"a")), "xz"),
    ],
)
def test_kinds_of_files_that_python_itself_wrote(tmp_path, write, expected):
    path = tmp_path / "data.bin"
    write(path)
    assert kind(path.read_bytes()[: module.HEAD]) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", "empty"),
        (b"II*\0\x08\0\0\0", "tiff"),
        (b"MM\0*\0\0\0\x08", "tiff"),
        (b"II+\0\x08\0\0\0", "bigtiff"),
        (b"\x89PNG\r\n\x1a\n\0\0", "png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "jpeg"),
        (b"GIF89a\1\0", "gif"),
        (bytes.fromhex("0000000c6a5020200d0a870a"), "jpeg2000"),
        (b"\x89HDF\r\n\x1a\n\0", "hdf5"),
        (b"CDF\1\0\0", "netcdf"),
        (b"CDF is a format", "text"),
        (b"PAR1\x15\4", "parquet"),
        (b"\0\0\x27\x0a" + bytes(96), "shapefile"),
        (b"fgb\3fgb\1", "flatgeobuf"),
        (b"LASF" + bytes(20) + b"\1\4", "las"),
        (b"GRIB\0\0\0\2", "grib"),
        (b"GRIB files are described here", "text"),
        (b"PMTiles\3", "pmtiles"),
        (b"PMTiles are one file", "text"),
        (b"PARENT_DIRECTORY\n", "text"),
        (b"LASF files hold points", "text"),
        (b"PK\5\6" + bytes(18), "zip"),
        (bytes.fromhex("28b52ffd24"), "zstd"),
        (b"%PDF-1.7\n%\xe2\xe3", "pdf"),
        (b"\x7fELF\2\1\1", "elf"),
        (b'{"type": "FeatureCollection"}', "json"),
        (b"\xef\xbb\xbf  [\n 1, 2]", "json"),
        (b"[tool.ruff]\nline-length = 120\n", "text"),
        (b"{% if x %}", "text"),
        (b"<?xml version='1.0'?><kml/>", "xml"),
        (b'<VRTDataset rasterXSize="1">', "xml"),
        (b"<!DOCTYPE html>\n<html>", "html"),
        (b"<me@example.org> wrote", "text"),
        ("Größe,測定\r\n".encode(), "text"),
        ("測".encode()[:2], "text"),
        ("a,b\n".encode("utf-16"), "text"),
        (b"ab\r\ncd\r\n", "text"),
        (b"Gr\xf6\xdfe", "unknown"),
        (b"\0\1\2\3", "unknown"),
    ],
)
def test_kinds_by_signature_or_by_what_the_text_begins_with(head, expected):
    assert kind(head) == expected


# The summary


def rows(count: int, **given: Any) -> list[dict[str, Any]]:
    base = {"entry": "file", "bytes": 1, "suffix": ".txt", "kind": "text"}
    return [{"success": True, "result": {"path": f"{i:06}", **base, **given}} for i in range(count)]


def summarise(previous: list[dict[str, Any]]) -> dict[str, Any]:
    outcome = summarise_container({"previous_results": previous, "job_parameters": {}, "aggregation_metadata": {}})
    assert outcome["success"] is True
    return outcome["result"]


