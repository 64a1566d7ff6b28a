"""``geoflow tasks --format``: what stands in the file, which stage it is of, and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.commands.cli import main

Typed = Any
PIECES = gf.JobType("pieces")


@PIECES.stage
def scan(params: dict) -> list[dict]:
    return [{"n": n, "api_key": "hunter2"} for n in range(3)]


@PIECES.each(scan, on_failure="continue")
def cut(item: dict) -> dict:
    if item["n"] == 2:
        raise ValueError("no such piece")
    return {"bbox": [item["n"], 0, item["n"] + 1, 1], "name": "\x1b[31m,é"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tables") / "work.db"
    with gf.Session(path, workers=0, max_retries=0, display="none") as session:
        PIECES.run(session=session)
    return path


@pytest.fixture
def typed(store: Path, capfd: pytest.CaptureFixture[str]) -> Typed:
    def types(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        return (main(["tasks", "--store", str(store), *words]), *capfd.readouterr())

    return types


def test_a_stages_fields_are_columns_with_the_secrets_of_its_parameters_masked(typed: Typed) -> None:
    code, out, err = typed("--format", "csv")
    assert (code, err) == (0, "geoflow: this is stage 2, cut, the last that was planned; --stage names another.\n")
    rows = list(csv.DictReader(out.splitlines()))
    assert [(row["status"], row["bbox"], row["name"], row["n"], row["api_key"]) for row in rows] == [
        ("completed", "[0, 0, 1, 1]", "\x1b[31m,é", "0", "***"),
        ("completed", "[1, 0, 2, 1]", "\x1b[31m,é", "1", "***"),
        ("failed", "", "", "2", "***"),
    ]


@pytest.mark.parametrize("stage", ["1", "scan"])
def test_a_stage_is_named_or_numbered_and_the_list_knows_it_too(typed: Typed, stage: str) -> None:
    code, out, err = typed("--format", "tsv", "--stage", stage)
    assert (code, len(out.splitlines()), err) == (0, 2, "")
    assert [task["stage_name"] for task in json.loads(typed("--json", "--stage", stage)[1])] == ["scan"]


def test_state_and_limit_hold_for_files_too(typed: Typed) -> None:
    _, out, _ = typed("--format", "csv", "--state", "completed", "--limit", "1")
    assert len(out.splitlines()) == 2


def test_geojson_is_what_a_geographer_reads(typed: Typed) -> None:
    pytest.importorskip("geopandas", reason="pip install 'geoflow[vector]' has it")
    code, out, err = typed("--format", "geojson", "--stage", "cut")
    assert (code, out) == (2, "")
    assert "the geometries of 'bbox' are is not known. Say it, as in --crs EPSG:4326" in err
    code, out, _ = typed("--format", "geojson", "--stage", "cut", "--crs", "EPSG:4326")
    features = json.loads(out)["features"]
    assert code == 0
    assert [feature["geometry"] is None for feature in features] == [False, False, True]
    assert features[1]["geometry"]["type"] == "Polygon"


def test_parquet_is_bytes_for_a_file_and_not_for_a_terminal(
    store: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyarrow", reason="pip install 'geoflow[vector]' has it")
    words = ["tasks", "--store", str(store), "--format", "parquet"]
    assert main(words) == 0
    out = capfdbinary.readouterr().out
    assert out[:4] == out[-4:] == b"PAR1"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(words) == 2
    assert b"lead it to a file" in capfdbinary.readouterr().err


def test_S45_a_terminal_is_given_no_control_characters(typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b" not in typed("--format", "csv")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--format", "csv", "--stage", "paste"), "There is no stage 'paste' that was planned: scan (1), cut (2)."),
        (("--format", "csv", "--json"), "leave it out beside --format"),
        (("--format", "csv", "--crs", "EPSG:4326"), "are for --format geojson and --format parquet"),
        (("--geometry", "bbox"), "are for --format geojson and --format parquet"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_printed(typed: Typed, words: Any, message: str) -> None:
    code, out, err = typed(*words)
    assert (code, out) == (2, "")
    assert message in err
