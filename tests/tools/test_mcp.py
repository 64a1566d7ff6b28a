"""`geoflow mcp`, asked by the client of the protocol's own SDK."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf

mcp = pytest.importorskip("mcp", reason="needs the extra mcp")

JOB_TYPE = """\
import geoflow as gf

broken = gf.JobType("broken")


@broken.stage
def tiles(p: dict) -> list[int]:
    return [1, 2, 3, 4]


@broken.each(tiles)
def read(tile: int, params: dict) -> int:
    print("reading", tile)
    if tile > 2:
        try:
            raise KeyError(f"band {params['which']} is not there")
        except KeyError as exc:
            raise ValueError(f"tile {tile} cannot be read") from exc
    return tile


ALL_JOBS = {"broken": broken}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty jobs, each with a cause of its own."""
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "broken.py").write_text(JOB_TYPE)
    with gf.open(folder / "work.db", workers=0, display="none", max_retries=0) as session:
        session.register(folder / "broken.py")
        for which in range(20):
            session.run("broken", which=which)
    return folder


def ask(folder: Path, *options: str, calls: list[tuple[str, dict[str, Any]]]) -> tuple[list[str], list[Any]]:
    """The names of the tools, and what each of *calls* is answered: parsed where it is no error."""
    from mcp import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client
    from mcp.types import TextContent

    async def asking() -> tuple[list[str], list[Any]]:
        words = ["-m", "geoflow", "mcp", "--store", str(folder / "work.db"), "--workers", "0", *options]
        server = StdioServerParameters(command=sys.executable, args=words, cwd=folder)
        async with Client(stdio_client(server)) as client:
            names = [tool.name for tool in (await client.list_tools()).tools]
            answers = [await client.call_tool(name, arguments) for name, arguments in calls]
        found: list[Any] = []
        for answer in answers:
            (block,) = answer.content
            assert isinstance(block, TextContent)
            found.append(block.text if answer.is_error else json.loads(block.text))
        return names, found

    return asyncio.run(asking())


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("work.db*")}


def test_S43_who_asks_learns_the_cause_of_each_of_twenty_broken_jobs_and_the_store_stays_as_it_was(
    folder: Path,
) -> None:
    before = content(folder)
    with gf.open(folder / "work.db", workers=0, display="none") as session:
        ids = list(session.jobs()["job_id"])
    calls = [("jobs", {"limit": 30}), *(("errors", {"job": job_id}) for job_id in ids)]
    names, (jobs, *errors) = ask(folder, calls=calls)
    assert names == ["jobs", "status", "errors", "task", "logs", "compare", "check"]
    assert [job["job_id"] for job in jobs] == ids
    assert len(errors) == 20
    for which, told in enumerate(errors):
        (group,) = told["failed_tasks"]
        assert group["tasks"] == 2
        assert group["cause"] == f"KeyError: 'band {which} is not there'"
        assert group["message"] == "tile 3 cannot be read"
    assert content(folder) == before


def test_the_story_of_a_task_has_what_it_was_given_what_it_printed_and_how_it_ended(folder: Path) -> None:
    with gf.open(folder / "work.db", workers=0, display="none") as session:
        first, second = session.jobs()["job_id"][:2]
    _, (story, logs, compared, wrong, unknown) = ask(
        folder,
        calls=[
            ("task", {}),
            ("logs", {"limit": 2}),
            ("compare", {"job": first, "other": second}),
            ("status", {"job": "--store=x"}),
            ("task", {"task": "0/9"}),
        ],
    )
    assert story["status"] == "failed"
    assert story["output"] == "reading 3\n"
    assert "band 19 is not there" in story["attempts"][0]["traceback"]
    assert len(logs) == 2
    assert "which" in json.dumps(compared["parameters"])
    assert "no job" in wrong.lower(), "what is given as a job is never an option"
    assert unknown


def test_only_with_allow_run_a_job_is_run(folder: Path) -> None:
    names, (job, again, wrong) = ask(
        folder,
        "--allow-run",
        calls=[
            ("run", {"job_type": "hello_world", "parameters": {"n": 2}}),
            ("run", {"job_type": "hello_world", "parameters": {"n": 2}}),
            ("run", {"job_type": "hello_world", "parameters": {"n": "many"}}),
        ],
    )
    assert names[-2:] == ["run", "retry"]
    assert job["status"] == "completed"
    assert again["job_id"] == job["job_id"]
    assert "n" in wrong
