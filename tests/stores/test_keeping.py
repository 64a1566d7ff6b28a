"""What a store holds is told by size, and all of a job is written as one document."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.commands.cli import main
from geoflow.errors import JobNotFound, StoreError
from tests.helpers.saving import files, submit
from tests.helpers.sessions import OpenSession, rows

pytestmark = pytest.mark.on_duckdb(seldom=True)


@pytest.fixture
def session(open_session: OpenSession) -> gf.Session:
    return open_session(workers=0)


def a_failed_job(session: gf.Session, **more: Any) -> gf.JobHandle:
    tasks = [{"do": "raise", "value": "ValueError", **more}, {"do": "sleep", "value": 0}]
    return session.submit("two_acts", tasks=tasks, tasks_2=[], n=7).wait()


def test_S62_a_dump_has_all_rows_of_the_job_with_its_history_and_no_secret(session: gf.Session, tmp_path: Path) -> None:
    session.submit("hello_world", message="other", n=1).wait()
    job = a_failed_job(session)
    job.rerun().wait()
    dumped = session.dump(job)
    assert isinstance(dumped, dict)
    assert list(dumped) == ["geoflow", "format", "job", "stages", "tasks", "attempts"]
    assert (dumped["geoflow"], dumped["format"]) == (gf.__version__, 1)
    assert (dumped["job"]["job_id"], dumped["job"]["status"]) == (job.id, "failed")
    assert [stage["stage_name"] for stage in dumped["stages"]] == list(job.stages()["stage_name"])
    for table in ("tasks", "attempts"):
        ((number,),) = rows(session, f"SELECT count(*) FROM {table} WHERE job_id = ?", job.id)
        assert len(dumped[table]) == number > 2
        assert {row["superseded"] for row in dumped[table]} == {True, False}
        assert {row["job_id"] for row in dumped[table]} == {job.id}
    assert "ValueError" in {row["error_type"] for row in dumped["attempts"]}
    written = session.dump(job.id[:12], tmp_path / "job.json")
    assert written == tmp_path / "job.json"
    assert json.loads((tmp_path / "job.json").read_text()) == dumped
    assert (tmp_path / "job.json").stat().st_mode & 0o777 == 0o600
    with pytest.raises(StoreError, match=r"job\.json is there already, and was not touched"):
        session.dump(job, tmp_path / "job.json")
    with pytest.raises(StoreError, match="There is no folder"):
        session.dump(job, tmp_path / "none" / "job.json")
    with pytest.raises(JobNotFound):
        session.dump("f" * 64)


def test_S62_a_dump_masks_secrets_and_keeps_strange_text_whole(session: gf.Session) -> None:
    text = "\u2028 line\x85 \u202e turned \x1b[31m"
    job = session.submit("hello_world", message=text, n=1).wait()
    dumped = session.dump(job)
    assert isinstance(dumped, dict)
    assert dumped["job"]["parameters"]["message"] == text
    secret = a_failed_job(session, password="hunter2")
    assert "hunter2" in json.dumps(rows(session, "SELECT parameters FROM task"))
    assert "hunter2" not in json.dumps(session.dump(secret))


def test_S62_geoflow_dump_prints_the_document_and_size_what_takes_the_space(
    session: gf.Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = submit(session, {"seed": 2}).wait()
    sizes = session.size()
    (told,) = sizes.document()["jobs"]
    saved = sum(Path(f"{session.settings.store}.files", job.id, name).stat().st_size for name in names(session, job))
    assert (told["job_id"], told["tasks"], told["saved"]) == (job.id, 2, saved)
    texts = "sum(length(CAST(result AS VARCHAR)))"
    ((results,),) = rows(session, f"SELECT {texts} FROM attempt")
    ((own,),) = rows(session, f"SELECT {texts} FROM job")
    assert told["results"] == results + own
    assert {file["what"] for file in sizes.document()["files"]} >= {"store", "saved files", "log"}
    assert str(sizes).splitlines()[0].endswith(" in all")
    store = session.settings.store
    session.close()
    assert main(["dump", job.id[:8], "--store", store]) == 0
    assert json.loads(capsys.readouterr().out)["job"]["job_id"] == job.id
    assert main(["dump", job.id[:8], str(tmp_path / "d.json"), "--store", store]) == 0
    assert capsys.readouterr().out == f"Job {job.id[:8]} is written to {tmp_path / 'd.json'}.\n"
    assert json.loads((tmp_path / "d.json").read_text())["job"]["job_id"] == job.id
    assert main(["size", "--json", "--store", store]) == 0
    assert json.loads(capsys.readouterr().out)["jobs"] == [told]


def test_types_has_what_is_registered_and_what_is_built_in_with_its_parameters(session: gf.Session) -> None:
    flow = gf.JobType("mine", description="My own.")

    @flow.stage
    def numbers(params: dict[str, int]) -> list[int]:
        return [1]

    session.register(flow)
    known = {row["job_type"]: row for row in session.types().document()}
    assert {"hello_world", "list_container_contents", "mine"} <= set(known)
    assert known["mine"]["description"] == "My own."
    assert known["mine"]["stages"] == ["numbers (single)"]
    assert [known[name]["built_in"] for name in ("hello_world", "mine")] == [True, False]
    assert known["hello_world"]["parameters"][0] == {
        "name": "n", "kind": "integer", "required": False, "help": "", "default": 3
    }  # fmt: skip
    assert "Parameters: n = 3, message = 'Hello'" in str(session.types())


def names(session: gf.Session, job: gf.JobHandle) -> list[str]:
    return files(Path(session.settings.store))[job.id]
