"""What verbs print with ``--json``: as its schema says, and as docs/json.md does."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from geoflow.commands.cli import main
from geoflow.commands.documents import DOCUMENTS, schema
from geoflow.commands.grammar import commands
from tests.helpers.sessions import ROOT

JOB = '''\
"""Tiles, one of which fails."""

import logging

import geoflow as gf

tiles = gf.JobType("said_tiles")


@tiles.stage
def scan(p: dict) -> list[int]:
    return [*range(3)]


@tiles.each(scan)
def measure(n: int) -> float:
    print("measuring", n)
    logging.getLogger("mine").warning("here", extra={"mine": n})
    return 1 / (n - 1)


ALL_JOBS = {"said_tiles": tiles}
'''

Say = Callable[..., Any]


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """What a verb prints with ``--json``, which is as its schema says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "said_job.py").write_text(JOB)

    def said(verb: str, *words: str) -> Any:
        capsys.readouterr()
        main(["--workers", "0", verb, *words, "--json"])
        out, err = capsys.readouterr()
        assert out, err
        document = json.loads(out)
        wrong = [
            f"{each.json_path}: {each.message[:200]}"
            for each in Draft202012Validator(schema(verb)).iter_errors(document)
        ]
        assert wrong == [], f"geoflow {verb} {' '.join(words)}"
        return document

    yield said
    sys.modules.pop("said_job", None)


def test_each_verb_prints_what_its_schema_says(say: Say) -> None:
    job = say("run", "said_job.py", "--retries", "0")["job_id"]
    other = say("run", "hello_world", "n=2")["job_id"]
    assert say("jobs")[0]["job_id"] == job
    for verb in ("status", "watch", "errors", "logs", "tasks", "history"):
        if verb in commands().commands:
            assert say(verb, job)
    assert {"mine"} <= {name for line in say("logs", job) for name in line}
    assert say("output", f"{job}/0")["output"] == "measuring 0\n"
    assert say("debug", f"{job}/0", "--load", "said_job.py")["success"] is True
    say("plan", "said_job.py")
    say("probe", "hello_world", "n=4")
    assert say("compare", job, other)["counts"]
    say("sql", "select", "job_id,", "ended_at", "from", "jobs")
    assert say("dump", job)["job"]["job_id"] == job
    say("dump", job, "job.json")
    say("bundle", "bad.zip", f"{job}/measure-1", "--load", "said_job.py")
    say("unbundle", "bad.zip")
    say("types", "said_job.py")
    say("config")
    say("size")
    say("prune", "--state", "failed")
    for verb in ("retry", "rerun"):
        assert say(verb, job, "--load", "said_job.py", "--retries", "0")["status"] == "failed"
    assert say("refinalize", other)["status"] == "completed"
    assert say("cancel", other)["status"] == "completed"
    assert say("resume") == []
    assert [each["what"] for each in say("backup", "copy.db")]
    say("convert", "copy.db", "copy.duckdb")
    assert say("restore", "copy.db")
    assert say("reset", "--confirm")["confirmed"] is True


def test_what_starts_processes_prints_what_its_schema_says_too(say: Say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([ROOT, os.environ.get("PYTHONPATH", "")]))
    assert say("check", "said_job.py")["job_types"] == ["said_tiles"]
    say("export", "said_job.py", "out")
    say("run", "said_job.py", "--retries", "0")
    say("bundle", "bad.zip", "--load", "said_job.py")
    assert say("unbundle", "bad.zip", "--run")["same"] is True
    assert {each["name"] for each in say("doctor")} >= {"python"}


def test_there_is_a_schema_for_each_verb_and_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert {*commands().commands} - {"mcp"} <= DOCUMENTS.keys()
    for verb in DOCUMENTS:
        made = schema(verb)
        Draft202012Validator.check_schema(made)
        assert made["title"] == f"geoflow {verb} --json"
    with pytest.raises(SystemExit) as ended:
        main(["size", "--json-schema"])
    assert (ended.value.code, json.loads(capsys.readouterr().out)) == (0, schema("size"))


def test_the_schemas_validate_nothing_that_they_do_not_name() -> None:
    sized: dict[str, Any] = {"files": [], "free": 0, "saved_by_removed_jobs": 0, "jobs": []}
    valid = Draft202012Validator(schema("size")).is_valid
    assert valid(sized)
    assert not valid({**sized, "more": 1})
    assert not valid({name: value for name, value in sized.items() if name != "free"})


def test_the_page_of_documents_has_the_fields_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.syspath_prepend(str(root / "tools"))
    text = (root / "docs" / "json.md").read_text("utf-8")
    assert importlib.import_module("json_table").page(text) == text, "run: python tools/json_table.py"
