"""What a process that exports spans tells of its jobs, by OpenTelemetry's own SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="needs the extra otel")

DRIVER = """\
import json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(exporter))
trace.set_tracer_provider(provider)

import geoflow as gf

tiles = gf.JobType("tiles")
broken = {2}

@tiles.stage
def scan(p: dict) -> list[int]:
    return list(range(p["n"]))

@tiles.each(scan)
def read(tile: int) -> int:
    if tile in broken:
        raise ValueError("password=hunter2 is wrong")
    return tile

def spans():
    found = [
        {"name": s.name, "trace": s.context.trace_id, "id": s.context.span_id, "parent": s.parent and s.parent.span_id,
         "start": s.start_time, "end": s.end_time, "about": dict(s.attributes), "status": s.status.status_code.name,
         "events": [dict(e.attributes) for e in s.events]}
        for s in exporter.get_finished_spans()
    ]
    exporter.clear()
    return found

ended = []
how = {"workers": 0, "max_retries": 0, "display": "none", "on_job_complete": lambda **about: ended.append(about)}
with gf.open(sys.argv[1], **how) as session:
    session.run(tiles, n=4)
    first = spans()
    broken.clear()
    session.job(session.jobs()["job_id"][0]).retry_failed().wait()
    second = spans()
    session.run(tiles, n=3_000)
    many = len(spans())
json.dump([first, second, many, len(ended)], sys.stdout)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder: Path = tmp_path_factory.mktemp("spans")
    (folder / "driver.py").write_text(DRIVER)
    command = [sys.executable, "driver.py", "work.db"]
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


def test_jobs_stages_and_attempts_are_spans_one_inside_the_other(told: list[Any]) -> None:
    first = told[0]
    (job,) = [span for span in first if span["name"] == "job tiles"]
    stages = [span for span in first if span["name"].startswith("stage ")]
    attempts = [span for span in first if span["name"] in ("tiles_scan", "tiles_read")]
    assert len({span["trace"] for span in first}) == 1
    assert [span["parent"] for span in stages] == [job["id"], job["id"]]
    assert {span["parent"] for span in attempts} == {span["id"] for span in stages}
    assert len(attempts) == 5
    by_id = {span["id"]: span for span in first}
    assert all(
        by_id[span["parent"]]["start"] <= span["start"] <= span["end"] <= by_id[span["parent"]]["end"]
        for span in (*stages, *attempts)
    )
    assert job["about"]["geoflow.status"] == "failed"


def test_a_failed_attempt_is_an_error_whose_exception_has_no_secrets(told: list[Any]) -> None:
    (failed,) = [span for span in told[0] if span["status"] == "ERROR" and span["name"] == "tiles_read"]
    (event,) = failed["events"]
    assert event["exception.type"] == "ValueError"
    assert event["exception.message"] == "password=*** is wrong"
    assert "hunter2" not in json.dumps(told[0])


def test_each_attempt_is_told_of_once(told: list[Any]) -> None:
    attempts = [span for span in told[1] if span["name"] in ("tiles_scan", "tiles_read")]
    assert [(span["name"], span["about"]["geoflow.outcome"]) for span in attempts] == [("tiles_read", "completed")]


def test_of_thousands_of_attempts_none_is_dropped_and_the_callback_is_called_too(told: list[Any]) -> None:
    assert told[2:] == [3_000 + 1 + 2 + 1, 3]
