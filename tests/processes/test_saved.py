"""S59: results that have no JSON form are files of their job, which references lead to."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import geoflow as gf
from geoflow.jobtypes.typed import foreign
from geoflow.stores.backup import restore
from tests.helpers import jobs, saving
from tests.helpers.saving import SIZE, array, files, submit
from tests.helpers.sessions import OpenSession, rows
from tests.helpers.waiting import wait_until

everywhere = pytest.mark.parametrize("workers", [0, 1])


def folder_of(session: gf.Session, job: gf.JobHandle) -> Path:
    return Path(f"{session.settings.store}.files", job.id)


def result_of(job: gf.JobHandle, task_id: str) -> dict[str, Any]:
    result = job.task(task_id).result
    assert result is not None
    return dict(result["result"])


@everywhere
def test_S59_what_a_task_saves_a_later_stage_finalize_and_the_session_load(
    open_session: OpenSession, workers: int
) -> None:
    session = open_session(workers=workers)
    job = submit(session, {"seed": 2}, {"seed": 3})
    job.wait()
    assert job.status == "completed"
    result = result_of(job, "1-1")
    reference = result["array"]
    assert result["checked"], "one object saved twice is one file, and is read in the attempt itself"
    assert (gf.load(reference) == array(3)).all()
    assert job.result()["sums"] == [float(array(2).sum()), float(array(3).sum())]
    assert gf.load(job.result()["all"]) == b"done"
    assert Path(reference["path"]).parent == folder_of(session, job)
    assert reference["bytes"] == os.stat(reference["path"]).st_size > SIZE * 4
    assert len(os.listdir(folder_of(session, job))) == 3, "two arrays; what is the same is there once"
    assert folder_of(session, job).stat().st_mode & 0o077 == 0, "S44: they are their owner's"


@everywhere
@pytest.mark.parametrize("do", ["raise", "return failure", "frame"])
def test_S59_of_an_attempt_that_fails_nothing_is_left(open_session: OpenSession, workers: int, do: str) -> None:
    session = open_session(workers=workers, max_retries=0)
    job = submit(session, {"seed": 2, "do": do})
    job.wait()
    assert job.status == "failed"
    assert files(Path(session.settings.store)) == {job.id: []}
    if do == "frame":
        ((error, retryable),) = rows(session, "SELECT error, retryable FROM attempts")
        assert "gf.save cannot keep this numpy.ndarray: ValueError: Object arrays cannot be saved" in error
        assert not retryable


def test_S59_of_a_worker_that_is_killed_nothing_is_left_and_the_next_attempt_has_it_whole(
    open_session: OpenSession,
) -> None:
    session = open_session(workers=1, base_delay=0.0)
    job = submit(session, {"seed": 2, "do": "die", "until_attempt": 1})
    job.wait()
    assert job.status == "completed"
    wait_until(lambda: not list(folder_of(session, job).glob(".*")))
    assert len(os.listdir(folder_of(session, job))) == 2
    assert job.result()["sums"] == [float(array(2).sum())]


@pytest.mark.parametrize(("workers", "do"), [(0, "thread"), (1, "fork")])
def test_S59_where_it_is_not_known_for_which_task_nothing_is_saved(
    open_session: OpenSession, workers: int, do: str
) -> None:
    session = open_session(workers=workers, max_retries=0)
    job = submit(session, {"seed": 2, "do": do})
    job.wait()
    assert "in a thread or a process that a handler has begun" in result_of(job, "1-0")["array"]["said"]


def test_S59_files_of_a_store_in_memory_go_with_its_session(open_session: OpenSession) -> None:
    session = open_session(":memory:", workers=1)
    job = submit(session, {"seed": 2})
    job.wait()
    path = Path(result_of(job, "1-0")["array"]["path"])
    assert path.is_relative_to(tempfile.gettempdir())
    assert path.exists()
    session.close()
    assert not path.parent.parent.exists()


@everywhere
def test_S48_S59_a_result_is_taken_over_while_its_saved_file_is_as_it_was_left(
    open_session: OpenSession, workers: int
) -> None:
    session = open_session(workers=workers)
    path = Path()
    for again, reused in ((False, False), (True, True)):
        job = submit(session, {"seed": 2}, on_existing="update" if again else "return")
        job.wait()
        tasks = job.tasks().set_index("task_id")
        assert tasks["reused_from"].notna()["2-0"] == reused, "equal results have equal references"
        path = Path(result_of(job, "2-0")["note"]["path"])
    path.unlink()
    job = submit(session, {"seed": 2}, on_existing="update")
    job.wait()
    assert not job.tasks().set_index("task_id")["reused_from"].notna()["2-0"]
    assert path.read_bytes() == b"done"


def test_S59_a_file_that_was_removed_or_changed_is_told_of_and_never_read(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    job = submit(session, {"seed": 2})
    job.wait()
    reference = result_of(job, "1-0")["array"]
    whole = Path(reference["path"]).read_bytes()
    Path(reference["path"]).write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(gf.errors.SavedFileLost, match=r"is not what gf\.save has written: it was changed since"):
        gf.load(reference)
    Path(reference["path"]).unlink()
    with pytest.raises(gf.errors.SavedFileLost, match="is gone: its job's files were removed"):
        gf.load(reference)
    assert saving.files(Path(session.settings.store))[job.id]


LIMITED = pytest.mark.parametrize(("length", "status"), [(255_000, ""), (300_000, "large"), (500_001, "too large")])


@everywhere
@LIMITED
def test_S60_a_large_result_is_remarked_on_and_one_over_the_limit_fails_its_task_for_good(
    open_session: OpenSession, workers: int, length: int, status: str
) -> None:
    session = open_session(workers=workers, result_limit=0.5)
    job = submit(session, {"seed": 1, "text": length})
    job.wait()
    ((output, error, retryable),) = rows(session, "SELECT output, error, retryable FROM attempts WHERE stage = 1")
    if status == "too large":
        told = r"The result is 50\d\.\d kB of JSON, and results may be 500\.0 kB \(the setting result_limit"
        assert re.match(told, error), "with its size, of which the path of the store is a part"
        assert "keep what is large in it by gf.save" in error
        assert not retryable
    else:
        assert job.status == "completed"
        assert ("The result is 30" in (output or "")) == (status == "large")


def test_S60_without_a_limit_a_result_may_be_as_large_as_the_store_can_hold(open_session: OpenSession) -> None:
    job = submit(open_session(workers=0, result_limit="none"), {"seed": 1, "text": 17_000_000})
    job.wait()
    assert job.status == "completed"


@everywhere
def test_S59_frames_and_arrays_cross_between_typed_stages_as_files(open_session: OpenSession, workers: int) -> None:
    pytest.importorskip("pyarrow")
    job = open_session(workers=workers).run(saving.typed(), n=3)
    assert job.result() == {"total": 30, "dtype": "int64"}
    made = job.task(next(iter(job.tasks()["task_id"]))).result
    assert made is not None
    assert made["result"]["gf_saved"] == "parquet"


@everywhere
def test_S59_objects_of_xarray_and_zarr_cross_between_typed_stages_as_files(
    open_session: OpenSession, workers: int
) -> None:
    pytest.importorskip("xarray")
    pytest.importorskip("zarr")
    cubes = importlib.import_module("tests.helpers.labelled").cubes
    job = open_session(workers=workers).run(cubes, n=3)
    assert job.result() == {"sums": [1.0, 5.0, 9.0], "data": ["EGM96"] * 3}


def test_S59_what_was_registered_for_a_type_counts_more_than_that_it_would_be_saved(
    open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "_added", {})  # for the others
    gf.register_type("numpy.ndarray", as_list, as_array)
    job = gf.JobType("typed_arrays")

    @job.stage
    def first(params: dict[str, int]) -> np.ndarray:
        return np.arange(params["n"])

    @job.reduce(first)
    def total(array: np.ndarray) -> dict[str, int]:
        return {"total": int(array.sum())}

    ran = open_session(workers=0).run(job, n=4)
    assert ran.result() == {"total": 6}
    assert ran.task(next(iter(ran.tasks()["task_id"]))).result == {"success": True, "result": [0, 1, 2, 3]}


def as_list(array: np.ndarray) -> list[int]:
    listed: list[int] = array.tolist()
    return listed


def as_array(values: list[int]) -> np.ndarray:
    return np.array(values)


def test_S59_a_frame_is_no_parameter_of_a_typed_job(open_session: OpenSession) -> None:
    job = gf.JobType("typed_parameters")

    @job.stage
    def first(array: np.ndarray) -> int:
        return int(array.sum())

    with pytest.raises(gf.errors.ParameterError, match=r"numpy\.ndarray, which has no JSON form"):
        open_session(workers=0).submit(job, array=np.arange(3))


def test_S59_what_was_saved_outside_of_a_task_is_no_parameter_and_what_a_job_saved_is(
    open_session: OpenSession,
) -> None:
    session = open_session(workers=0)
    with pytest.raises(gf.errors.ParameterError, match=r"given outside of a task, which is gone with this process"):
        submit(session, {"seed": 1, "more": [gf.save(b"x")]})
    first = submit(session, {"seed": 1})
    first.wait()
    second = submit(session, {"seed": 2, "more": result_of(first, "1-0")}, number=2)
    second.wait()
    assert second.status == "completed"


def test_S59_a_backup_has_what_jobs_have_saved_and_a_restore_brings_it_back(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=0)
    job = submit(session, {"seed": 2})
    job.wait()
    reference, store = result_of(job, "1-0")["array"], Path(session.settings.store)
    (folder_of(session, job) / ".draft").write_text("of an attempt that runs")
    copy = tmp_path / f"copy-of-{store.name}"
    made = session.backup(copy)
    session.close()
    assert made.set_index("file")["bytes"][f"{copy}.files"] > SIZE * 4
    assert [len(names) for names in files(copy).values()] == [2], "the array, and what finalize saved"
    shutil.rmtree(f"{store}.files")
    with pytest.raises(gf.errors.SavedFileLost):
        gf.load(reference)
    restore(copy, store, None)
    assert (gf.load(reference) == array(2)).all()
    assert Path(f"{store}.files").stat().st_mode & 0o077 == 0


def infinite(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": {"max": [1.0, float(params["say"]), np.float32("-inf")], "none": None}}


class Infinite(jobs.Acts):
    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"least": -float("inf"), "none": None}


def test_S21_an_infinity_becomes_null_and_that_is_said_with_its_place(open_session: OpenSession) -> None:
    session = open_session(workers=1)
    session.register(Infinite, handlers={"act": infinite})
    job = session.run("acts", tasks=[{"say": "inf"}, {"say": "nan"}])
    assert job.result() == {"least": None, "none": None}
    outputs = [job.task(f"s1-t{place}").output or "" for place in range(2)]
    told = "is infinite, which JSON has no number for: it is stored as null. Return a large number, or text."
    assert outputs == [
        f"result['result']['max'][1] {told.replace(',', ' (and 1 more),', 1)}\n",
        f"result['result']['max'][2] {told}\n",
    ]
    (said,) = job.logs(contains="infinite")["message"]
    assert said == f"finalize: result['least'] {told}"
