"""list_container_contents on real files: in the engine, and stage by stage with JSON between the stages."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib.util
import json
import lzma
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pydantic import ValidationError

from geoflow.builtin import list_container_contents as module
from geoflow.builtin.file_kinds import HEAD, kind, suffix
from geoflow.builtin.list_container_contents import (
    ALL_HANDLERS,
    SUMMARISE,
    ListContainerContents,
    analyse_thing,
    list_container,
    summarise_container,
)
from geoflow.core.models import JobExecutionContext, TaskResult, TaskStatus
from geoflow.errors import ResourceNotFoundError
from geoflow.jobtypes.registry import Registry
from tests.helpers.sessions import OpenSession

JOB = "c" * 64
STRICT = pytest.mark.parametrize("strict", [False, True])


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
        given = params(container=container, **given)
        self.tasks = plan(given, listed(given))
        outcomes = [through_json(analyse_thing(task["parameters"])) for task in self.tasks]
        completed = [outcome for outcome in outcomes if outcome["success"]]
        self.failures = [outcome for outcome in outcomes if not outcome["success"]]
        self.rows = {row["path"]: row for row in (outcome["result"] for outcome in completed)}
        data = through_json(summarise_container({"previous_results": completed, "job_parameters": given}))
        last = TaskResult(task_id="last", task_type=SUMMARISE, status=TaskStatus.COMPLETED, result_data=data)
        self.summary = ListContainerContents.finalize_job(
            JobExecutionContext(
                job_id=JOB,
                job_type="list_container_contents",
                current_stage=3,
                total_stages=3,
                parameters=given,
                task_results=[last],
            )
        )

    @property
    def entries(self) -> dict[str, str]:
        return {path: row["entry"] for path, row in self.rows.items()}


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


@pytest.mark.parametrize("url", ["s3://no-such-bucket/x", "zip://in::/no/such.zip", "zip://::s3://no/such.zip"])
def test_S7_a_url_is_left_alone_and_nothing_is_opened_to_validate_it(url):
    assert params(container=url)["container"] == url


def test_S7_all_problems_come_in_one_message():
    with pytest.raises(ValidationError) as caught:
        params(sha256="perhaps", colour="red")
    assert {error["loc"][0] for error in caught.value.errors()} == {"container", "sha256", "colour"}


@pytest.mark.parametrize("name", ["nowhere", "notes.txt", "pipe", ""])
def test_S7_what_is_neither_a_folder_nor_a_zip_file_is_refused_by_name(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("not a container")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ValidationError, match=f"there is no folder or zip file '{name}'"):
        params(container=name)


def test_S8_every_parameter_is_part_of_the_identity(tmp_path):
    variants: list[dict[str, Any]] = [{}, {"sha256": True}, {"strict": True}, {"container": tmp_path.parent}]
    ids = {ListContainerContents.generate_job_id(params(**{"container": tmp_path, **given})) for given in variants}
    assert len(ids) == 4


# Folders


@pytest.mark.skipif(not sys.platform.startswith("linux") or not shutil.which("find"), reason="needs GNU find")
@pytest.mark.parametrize("workers", [0, 2], ids=["inline", "processes"])
def test_every_file_is_a_row_and_files_and_bytes_are_those_of_find(open_session: OpenSession, workers: int):
    folder = Path(json.__file__).parents[1] / "email"
    command = ["find", str(folder), "-type", "f", "-printf", "%s\n"]
    sizes = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    session = open_session(workers=workers)
    session.register(module)
    job = session.run("list_container_contents", container=folder)
    summary = job.result()
    assert len(sizes) > 20
    assert len(job.tasks()) - 2 == summary["files"] == summary["entries"]["file"] == len(sizes)
    assert summary["bytes"] == sum(map(int, sizes))
    assert summary["by_suffix"][".py"]["count"] == len(list(folder.rglob("*.py")))
    assert sum(total["count"] for total in summary["by_kind"].values()) == len(sizes)


def test_an_empty_folder_and_an_empty_zip_file_complete(tmp_path, open_session: OpenSession):
    (tmp_path / "empty" / "also").mkdir(parents=True)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    session = open_session(workers=0)
    session.register(module)
    for name in ("empty", "empty.zip"):
        summary = session.run("list_container_contents", container=tmp_path / name).result()
        assert summary["container"] == str(tmp_path / name)
        assert summary["entries"] == {"empty container": 1}
        assert summary["files"] == summary["bytes"] == summary["error_count"] == 0


def test_links_are_looked_at_but_counted_apart_and_folders_behind_links_are_not_entered(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.txt").write_text("hello")
    (tmp_path / "to-file").symlink_to("real/a.txt")
    (tmp_path / "real" / "loop").symlink_to(tmp_path, target_is_directory=True)
    run = Run(tmp_path, strict=True)
    assert run.entries == {"real/a.txt": "file", "real/loop": "link to a folder", "to-file": "link"}
    assert (run.rows["to-file"]["bytes"], run.rows["to-file"]["kind"]) == (5, "text")
    assert (run.summary["files"], run.summary["bytes"]) == (1, 5)
    assert run.summary["entries"] == {"file": 1, "link to a folder": 1, "link": 1}


def test_dangling_links_are_counted_and_listed(tmp_path):
    (tmp_path / "gone").symlink_to("nowhere/at all")
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "fine").write_text("fine")
    summary = Run(tmp_path, sha256=True).summary
    assert (summary["files"], summary["entries"]["link"], summary["dangling_links"]) == (1, 2, 1)
    assert summary["error_count"] == 2
    assert summary["errors"] == [
        {"path": "circle", "error": "unreadable: Too many levels of symbolic links"},
        {"path": "gone", "error": "dangling link: No such file or directory"},
    ]


def test_S24_with_strict_a_dangling_link_fails_its_own_task_for_good_and_no_other(tmp_path):
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "fine").write_text("fine")
    run = Run(tmp_path, strict=True)
    assert list(run.rows) == ["fine"]
    error = f"gone in {tmp_path}: dangling link: No such file or directory"
    assert run.failures == [{"success": False, "error": error, "retryable": False}]


@STRICT
def test_a_file_that_vanished_since_it_was_listed_is_reported_with_its_reason(tmp_path, strict):
    (tmp_path / "here").write_text("here")
    given = params(container=tmp_path, strict=strict)
    [task] = plan(given, listed(given))
    (tmp_path / "here").unlink()
    outcome = analyse_thing(task["parameters"])
    assert outcome["success"] is not strict
    assert outcome.get("retryable", False) is False
    said = outcome["error"] if strict else outcome["result"]["error"]
    assert said.endswith("unreadable: No such file or directory")


def test_fifos_sockets_and_devices_are_rows_and_never_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("sock")
        Path("null").symlink_to("/dev/null")
        Path("file").write_text("x")
        run = Run(tmp_path, strict=True)
    assert [path for path, entry in run.entries.items() if entry == "special file"] == ["null", "pipe", "sock"]
    assert run.summary["entries"] == {"special file": 3, "file": 1}


def test_a_file_replaced_by_a_fifo_since_it_was_listed_is_not_opened(tmp_path):
    (tmp_path / "data").write_text("x")
    given = params(container=tmp_path)
    [task] = plan(given, listed(given))
    (tmp_path / "data").unlink()
    os.mkfifo(tmp_path / "data")
    assert analyse_thing(task["parameters"])["result"]["error"] == "unreadable: Not a regular file any more"


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


def test_a_folder_that_cannot_be_listed_is_reported_and_with_strict_fails_the_listing(tmp_path):
    # Not by its mode, which does not stop root: its path is longer than the system takes.
    here = os.open(tmp_path, os.O_RDONLY)
    try:
        for _ in range(20):
            os.mkdir("d" * 250, dir_fd=here)
            deeper = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = deeper
    finally:
        os.close(here)
    (tmp_path / "file").write_text("x")
    summary = Run(tmp_path).summary
    assert summary["entries"] == {"unreadable folder": 1, "file": 1}
    assert [error["error"] for error in summary["errors"]] == ["File name too long"]
    outcome = listed(params(container=tmp_path, strict=True))
    assert (outcome["success"], outcome["retryable"]) == (False, False)
    assert outcome["error"].startswith(f"1 unreadable folders in {tmp_path} (strict=true): dddd")
    shutil.rmtree(tmp_path / ("d" * 250))


def test_sha256_is_on_request_and_right_across_block_borders(tmp_path):
    for size in (0, 1, HEAD, HEAD + 2**20, 3 * 2**20 + 7):
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
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("empty.txt", "")
        offset = archive.getinfo("bad.bin").header_offset
    with open(path, "r+b") as file:
        file.seek(offset + 100)
        file.write(b"damage")
    run = Run(path, sha256=True)
    assert list(run.rows) == ["bad.bin", "empty.txt", "folder/ä.json"]
    assert (run.summary["files"], run.summary["bytes"], run.summary["error_count"]) == (3, 5008, 1)
    assert "unreadable: Bad CRC-32" in run.summary["errors"][0]["error"]
    assert run.rows["folder/ä.json"]["kind"] == "json"
    assert run.rows["folder/ä.json"]["sha256"] == hashlib.sha256(b'{"a": 1}').hexdigest()


@pytest.mark.parametrize("container", ["{}", "zip://in::{}", "zip://::file://{}"])
def test_an_archive_written_anew_under_its_name_is_read_anew(tmp_path, container):
    path = tmp_path / "data.zip"
    for text in ("first", "and second"):
        digest = hashlib.sha256(text.encode()).hexdigest()
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("in/a.txt", text)
        run = Run(container.format(path), sha256=True)
        assert [row["sha256"] for row in run.rows.values()] == [digest]


def test_an_archive_is_opened_once_for_the_listing_and_all_its_files(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for number in range(20):
            archive.writestr(f"{number}.txt", "text")
    opened = module._opened.cache_info().misses
    assert len(Run(tmp_path / "data.zip").rows) == 20
    assert module._opened.cache_info().misses == opened + 1


@pytest.fixture
def flaky() -> str:
    """A remote store in which one folder is forbidden and one file's connection breaks."""

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
    Flaky().pipe({"/top/deep/er/b.TIF": b"II*\0" + bytes(20), "/top/a.json": b'{"a": 1}', "/top/secret/a": b"a"})
    return "flaky://top"


def test_a_url_is_a_container_and_a_forbidden_folder_in_it_is_reported(flaky):
    run = Run(flaky, sha256=True)
    assert run.entries == {"a.json": "file", "deep/er/b.TIF": "file", "secret": "unreadable folder"}
    assert (run.summary["files"], run.summary["bytes"]) == (2, 32)
    assert run.rows["deep/er/b.TIF"]["kind"] == "tiff"
    assert run.rows["a.json"]["sha256"] == hashlib.sha256(b'{"a": 1}').hexdigest()
    assert run.summary["errors"] == [{"path": "secret", "error": "Permission denied"}]
    strict = listed(params(container=flaky, strict=True))
    assert (strict["success"], strict["retryable"]) == (False, False)


@STRICT
def test_S23_a_broken_connection_is_raised_for_the_engine_to_retry(flaky, strict):
    task = {"container": flaky, "path": "breaks", "entry": "file", "bytes": 1, "problem": None, "listed_at": "now"}
    with pytest.raises(ConnectionResetError):
        analyse_thing({**task, "sha256": False, "strict": strict})


@pytest.mark.parametrize("url", ["memory://", "memory://nowhere", "flaky://top/a.json", "zip://in::/no/such.zip"])
def test_S23_an_address_at_which_there_is_nothing_is_a_permanent_failure(flaky, url):
    with pytest.raises(ResourceNotFoundError, match=f"There is nothing at {url}: check the address"):
        listed(params(container=url))


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


def sqlite(setup: str) -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.executescript(f"{setup}; create table t (a)")
        return connection.serialize()


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"", "empty"),
        (sqlite("select 1"), "sqlite"),
        (sqlite(f"pragma application_id = {int.from_bytes(b'GPKG', 'big')}"), "geopackage"),
        (importlib.util.MAGIC_NUMBER + bytes(12), "python bytecode"),
        (tarfile.TarInfo("a").tobuf(), "tar"),
        (gzip.compress(b"a"), "gzip"),
        (bz2.compress(b"a"), "bzip2"),
        (lzma.compress(b"a"), "xz"),
        (b"II*\0\x08\0\0\0", "tiff"),
        (b"II+\0\x08\0\0\0", "tiff"),
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
        (b"PK\5\6" + bytes(18), "zip"),
        (bytes.fromhex("28b52ffd24"), "zstd"),
        (b"%PDF-1.7\n%\xe2\xe3", "pdf"),
        (b"\x7fELF\2\1\1", "elf"),
        (b'{"type": "FeatureCollection"}', "json"),
        (b"\xef\xbb\xbf  [\n 1, 2]", "json"),
        (b"[tool.ruff]\nline-length = 120\n", "text"),
        (b"<?xml version='1.0'?><kml/>", "xml"),
        (b'<VRTDataset rasterXSize="1">', "xml"),
        (b"<!DOCTYPE html>\n<html>", "html"),
        (b"<me@example.org> wrote", "text"),
        ("Größe,測定\r\n".encode(), "text"),
        ("測".encode()[:2], "text"),
        ("a,b\n".encode("utf-16"), "text"),
        (b"Gr\xf6\xdfe", "unknown"),
        (b"\0\1\2\3", "unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kinds_by_signature_or_by_what_the_text_begins_with(head, expected):
    assert kind(head) == expected


# The summary


def summarise(*given: dict[str, Any]) -> dict[str, Any]:
    base = {"entry": "file", "bytes": 1, "suffix": ".txt", "kind": "text", "error": None}
    previous = [{"success": True, "result": {"path": f"{i:06}", **base, **row}} for i, row in enumerate(given)]
    return summarise_container({"previous_results": previous, "job_parameters": {"container": "/data"}})["result"]


def test_the_summary_shows_the_first_hundred_errors_and_counts_all():
    summary = summarise(*[{"kind": "unreadable", "error": "Permission denied"}] * 250)
    assert (summary["error_count"], len(summary["errors"])) == (250, 100)
    assert summary["by_kind"] == {"unreadable": {"count": 250, "bytes": 250}}


def test_files_whose_size_is_unknown_count_no_bytes_and_those_without_a_suffix_count_together():
    assert summarise({"bytes": None, "suffix": ""}, {"suffix": ""})["by_suffix"] == {"(none)": {"count": 2, "bytes": 1}}


def test_beyond_the_fifty_most_common_suffixes_are_summed_up_as_other():
    by_suffix = summarise(*[{"suffix": f".s{i:02}", "bytes": 2} for i in range(60) for _ in range(60 - i)])["by_suffix"]
    assert len(by_suffix) == 51
    assert by_suffix[".s00"] == {"count": 60, "bytes": 120}
    assert by_suffix["(other)"] == {"count": 55, "bytes": 110}


def test_fifty_thousand_entries_are_planned_and_summed_up_with_ids_of_their_own():
    things = [[f"folder/{i:06}.tif", "file", i, None] for i in range(50_000)]
    given = {"container": "/data", "sha256": False, "strict": False}
    tasks = plan(given, {"success": True, "result": {"things": things, "listed_at": "now"}})
    assert len({task["task_id"] for task in tasks}) == 50_000
    assert summarise(*[task["parameters"] | {"error": None} for task in tasks])["bytes"] == sum(range(50_000))
