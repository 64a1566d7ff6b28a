"""Two jobs, or two runs of one, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import ParameterError
from geoflow.tools.compare.found import Comparison
from tests.helpers.sessions import OpenSession, rows


def values(*some: Any) -> list[dict[str, Any]]:
    return [{"value": value} for value in some]


def outcomes(found: Comparison) -> list[str]:
    return found.tasks["outcome"].tolist()


FAILS = {"do": "raise", "value": "ValueError"}


def test_S64_each_pair_of_tasks_is_told_of_once_with_what_became_of_it(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    a = session.run("acts", tasks=[*values(1, 2, 3), FAILS])
    b = session.run("acts", tasks=[*values(1, 9), FAILS, {}, {}])
    found = gf.compare(a, b)
    assert outcomes(found) == ["same", "differs", "status", "status", "only_b"]
    assert found.counts == {"status": 2, "differs": 1, "only_b": 1, "same": 1}
    differs = found.tasks.iloc[1]
    assert (differs["path"], differs["a"], differs["b"]) == ("result.value", 2, 9)
    assert found.tasks["key"].tolist() == [f"s1-t{n}" for n in range(5)]
    assert found.stages[["tasks_a", "tasks_b", "failed_a", "failed_b"]].to_numpy().tolist() == [[4, 5, 1, 1]]
    assert found.parameters["parameter"].tolist() == ["tasks[1].value"]
    assert found.code.empty


def test_S64_what_pairs_the_tasks_is_found_said_and_can_be_chosen(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    a, b = session.run("acts", tasks=values("x", "y")), session.run("acts", tasks=values("y", "z"))
    assert (gf.compare(a, b).paired, outcomes(gf.compare(a, b))) == ("key", ["differs", "differs"])
    for on in ("parameters", "value"):
        ids = gf.compare(a, b, on=on).tasks[["task_id_a", "task_id_b"]].astype(object)
        assert ids.where(ids.notna(), None).to_numpy().tolist() == [
            ["s1-t0", None],
            ["s1-t1", "s1-t0"],
            [None, "s1-t1"],
        ]
    assert outcomes(gf.compare(a, b, on="place")) == ["differs", "differs"]
    hashed = [session.run("hello_world", n=2, message=word) for word in ("one", "two")]
    assert gf.compare(*hashed).paired == "their places", "their ids are made of the job's, and all parameters differ"


def test_S64_what_cannot_be_compared_is_refused_with_what_to_do(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    a, b = session.run("acts", tasks=values(1, 1)), session.run("acts", tasks=values(1))
    with pytest.raises(
        ParameterError, match=r"Two tasks of one stage of acts .* have the same value: name another on="
    ):
        gf.compare(a, b, on="value")
    with pytest.raises(ParameterError, match="has a parameter 'tile': on= names one"):
        gf.compare(a, b, on="tile")
    with pytest.raises(ParameterError, match="has run once"):
        gf.compare(a)
    with pytest.raises(ParameterError, match="named twice"):
        gf.compare(a, a)
    with pytest.raises(ParameterError, match="tolerance cannot be 2"):
        gf.compare(a, b, tolerance=2)


@pytest.mark.on_duckdb
def test_S64_a_job_is_compared_with_what_it_was_before_its_rerun(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(workers=0)
    told = tmp_path / "told"
    told.write_text("1")
    job = session.run("acts", tasks=[{"do": "tell", "value": f"told = int(open({str(told)!r}).read())"}, {"value": 2}])
    told.write_text("2")
    job.rerun(stage=1).wait()
    found = session.compare(job.id[:10])
    assert outcomes(found) == ["differs", "same"]
    assert found.tasks["path"].tolist()[0] == "result.told"
    assert found.tasks[["a", "b"]].to_numpy().tolist()[0] == [1, 2]


def test_S64_the_picture_is_what_its_html_begins_with_and_a_stage_is_paired_by_what_its_ids_allow(
    open_session: OpenSession,
) -> None:
    session = open_session(":memory:", workers=0)
    summed = gf.JobType("summed")

    @summed.stage
    def listed(params: dict[str, Any]) -> list[int]:
        return list(params["values"])

    @summed.each(listed)
    def squared(value: int) -> int:
        return value**2

    @summed.reduce(squared)
    def added(values: list[int]) -> int:
        return sum(values)

    found = gf.compare(*(session.run(summed, values=[1, 2, number]) for number in (3, 4)))
    assert found.counts == {"differs": 3, "same": 2}
    assert found.paired == "key; in added by their places"
    assert found._repr_html_().index("<svg") < found._repr_html_().index("Tasks, paired by")
    assert found.picture().part in found._repr_html_()
    assert "<svg" not in repr(found)
    assert "3 gave something else, 2 the same" in str(found.picture())


def measured(job_type: gf.JobType) -> gf.JobType:
    @job_type.stage
    def measure(params: dict[str, Any]) -> float:
        return 1.0

    return job_type


def measured_otherwise(job_type: gf.JobType) -> gf.JobType:
    @job_type.stage
    def measure(params: dict[str, Any]) -> float:
        return 1.0 + 1e-12

    return job_type


def test_S64_code_that_changed_is_named_by_stage_and_what_it_gave_is_taken_within_the_tolerance(
    open_session: OpenSession,
) -> None:
    session = open_session(":memory:", workers=0)
    a = session.run(measured(gf.JobType("measured")), n=1)
    b = session.run(measured_otherwise(gf.JobType("measured")), n=2)
    found = gf.compare(a, b)
    assert found.code["stage_name"].tolist() == ["measure"]
    assert found.code["code_a"].tolist() != found.code["code_b"].tolist()
    (diff,) = found.code["diff"]
    assert [line for line in diff.splitlines()[3:] if line[0] in "+-"] == ["-    return 1.0", "+    return 1.0 + 1e-12"]
    assert "Handlers that ran with other code:" in repr(found)
    assert "+    return 1.0 + 1e-12" in repr(found)
    assert outcomes(found) == ["same"]
    assert outcomes(gf.compare(a, b, tolerance=0)) == ["differs"]


FACTOR = 3
DB_PASSWORD = "hunter2"


def helper(value: int) -> int:
    """It is used by another one."""
    return value * FACTOR


def with_helper(job_type: gf.JobType) -> gf.JobType:
    @job_type.stage
    def helped(params: dict[str, Any]) -> int:
        return helper(len(DB_PASSWORD))

    return job_type


def test_S64_the_text_of_code_is_kept_once_with_what_it_uses_and_without_secrets(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    for n in range(3):
        session.run(measured(gf.JobType("measured")), n=n)
    session.run(with_helper(gf.JobType("helped")), n=1)
    texts = [text for (text,) in rows(session, "SELECT source FROM sources")]
    assert len(texts) == 2
    (text,) = (text for text in texts if "helped" in text)
    assert "def helper(" in text
    assert "FACTOR = 3" in text
    assert "hunter2" not in text


def test_S64_files_that_tasks_were_given_and_that_changed_are_named(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session(":memory:", workers=0, reuse=True)
    file = tmp_path / "in.txt"
    file.write_text("one")
    a = session.run("acts", tasks=values(str(file)))
    file.write_text("another")
    b = session.run("acts", tasks=values(str(file), "more"))
    assert gf.compare(a, b).files.to_numpy().tolist() == [[str(file), "changed"]]


def test_S44_secrets_are_masked_in_what_is_shown_and_not_in_frames(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    a, b = (session.run("acts", tasks=values(1), password=word) for word in ("hunter2", "hunter3"))
    found = gf.compare(a, b)
    assert found.parameters["a"].tolist() == ["hunter2"]
    for shown in (repr(found), found._repr_html_(), found.to_json()):
        assert "hunter" not in shown


def test_S64_a_comparison_is_read_in_a_terminal_and_by_programs(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=0)
    a = session.run("acts", tasks=values(*range(30)))
    b = session.run("acts", tasks=values(*range(100, 130)))
    found = gf.compare(a, b)
    assert max(map(len, found.lines(80))) <= 80
    assert "These are 10 of 30; comparison.tasks, or --json, has all." in repr(found)
    assert "30/30" in repr(found)
    read = json.loads(found.to_json())
    assert (read["counts"], len(read["tasks"])) == ({"differs": 30}, 30)
    assert (read["tasks"][0]["a"], read["tasks"][0]["b"]) == (0, 100)
    assert isinstance(read["tasks"][0]["a"], int)
