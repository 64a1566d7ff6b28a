"""A job drawn as HTML and as text: no failure hidden, nothing that runs, no larger for more tasks (S34, S44, S45)."""

from __future__ import annotations

import itertools
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from geoflow.core.batch import NewTasks
from geoflow.core.models import Attempt, Failure
from geoflow.core.rows import Lease, Move, NewJob
from geoflow.errors import JobNotFound
from geoflow.executors import worker
from geoflow.render.drawing import job_halves, job_html, job_parts, job_text, jobs_html, jobs_text
from geoflow.stores.duckdb import DuckDbStore
from geoflow.stores.sqlite import SqliteStore
from geoflow.stores.store import Store
from geoflow.stores.task_lists import Wanted
from geoflow.views.failures import folded, why
from geoflow.views.model import HIT, ErrorGroup, JobView
from geoflow.views.snapshot import SAMPLE, listing, snapshot
from geoflow.views.stages import STATES
from geoflow.views.stages import folded as together
from geoflow.views.tasks import listed, task
from geoflow.views.tracebacks import cause, causes, fold, place
from tests.helpers.drawn import HOSTILE, JOB, a_stage, a_view, checked, text_of
from tests.helpers.profiles import a_share, seldom

STORES: dict[str, Callable[[Path], Store]] = {
    "sqlite": lambda folder: SqliteStore(":memory:"),
    "duckdb": lambda folder: DuckDbStore(folder / "work.duckdb"),
}
STAGES = [
    {"number": 1, "name": "list", "task_type": "list_tiles", "parallelism": "single"},
    {"number": 2, "name": "read", "task_type": "read_tile", "parallelism": "fan_out"},
    {"number": 3, "name": "merge", "task_type": "merge_tiles", "parallelism": "fan_in"},
]
TRACEBACK = """Traceback (most recent call last):
  File "/home/me/tiles.py", line 12, in read
    rasterio.open(path)
  File "/venv/lib/python3.11/site-packages/rasterio/__init__.py", line 300, in open
    raise RasterioIOError(path)
rasterio.errors.RasterioIOError: password=hunter2
"""
FOREIGN_FRAME = "\n".join(TRACEBACK.splitlines()[3:5])
FOLDED_FRAME = "  [1 library frame: rasterio/__init__.py, line 300, in open]"


@pytest.fixture(params=["sqlite", seldom("duckdb")])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    store = STORES[request.param](tmp_path)
    yield store
    store.close()


def started(store: Store, *, job_id: str = JOB, stages: list[dict[str, Any]] = STAGES, **parameters: Any) -> Lease:
    row, _ = store.create(NewJob(job_id, "tile_stats", json.dumps(stages), json.dumps(parameters), created_at=100.0))
    lease = store.claim(row.job_key, json.dumps({"pid": 4242, "since": "12:00"}))
    store.change_job(lease, "start", now=101.0)
    return lease


def planned(store: Store, lease: Lease, stage: int, tasks: int, now: float = 102.0) -> list[int]:
    given = [(f"s{stage}-{i}", "read_tile", json.dumps({"i": i, "api_key": "hunter2"}), None) for i in range(tasks)]
    row = store.plan(lease, stage, NewTasks.of(*given), now=now)
    return list(range(row.first_key, row.end_key))


def failure(error: str, error_type: str = "RasterioIOError", category: str = "unknown") -> Failure:
    return Failure(error, error_type, category, category != "permanent", TRACEBACK)


def complete(store: Store, lease: Lease, keys: list[int], at: float = 104.0) -> None:
    ended = [Attempt(key, 1, "completed", at - 1, at, result='{"success":true}') for key in keys]
    store.commit(lease, [Move("start", keys), Move("complete", keys)], ended)


def fail(store: Store, lease: Lease, keys: list[int], error: str = "tile {key} is broken") -> None:
    failed = [
        Attempt(key, 1, "failed", 103.0, 104.5, failure=failure(error.format(key=key)), output="reading\n")
        for key in keys
    ]
    store.commit(lease, [Move("start", keys), Move("fail", keys)], failed)


def failed_job(store: Store) -> Lease:
    """Stage 1 completed, two of stage 2's five tasks failed, one of them after a retry."""
    lease = started(store, folder="/data", password="hunter2")
    complete(store, lease, planned(store, lease, 1, 1))
    first, *others, last = planned(store, lease, 2, 5, now=105.0)
    store.commit(
        lease,
        [Move("start", [first]), Move("retry", [first], not_before=107.0)],
        [Attempt(first, 1, "failed", 105.0, 106.0, failure=failure("tile 0 is broken"))],
    )
    again = Attempt(first, 2, "failed", 107.0, 108.0, failure=failure("tile 0 is broken"), queued_at=106.0, backoff=1.0)
    store.commit(
        lease, [Move("start", [first]), Move("fail", [first])], [again._replace(output="a\x1b[31mb token=hunter2")]
    )
    complete(store, lease, others)
    fail(store, lease, [last], "tile {key} is broken")
    store.change_job(lease, "fail", now=109.0, error="Task 's2-0' failed: token=hunter2")
    store.end_job(lease, error=None, now=110.0)
    return lease


def completed_job(store: Store, result: dict[str, Any], traceback: str | None = None, **about: Any) -> None:
    lease = started(store, **about)
    complete(store, lease, planned(store, lease, 1, 1))
    store.change_job(
        lease, "complete", now=111.0, result=json.dumps(result, separators=(",", ":")), traceback=traceback
    )
    store.release(lease)


# The snapshot


def test_a_snapshot_of_a_failed_job_says_what_the_store_says(store):
    store.release(failed_job(store))
    view = snapshot(store, JOB, now=500.0)

    assert (view.state, view.elapsed, view.driver) == ("failed", 9.0, None)
    assert [(stage.name, stage.state, stage.tasks, dict(stage.counts)) for stage in view.stages] == [
        ("list", "completed", 1, {"completed": 1}),
        ("read", "failed", 5, {"completed": 3, "failed": 2}),
        ("merge", "not planned", 0, {}),
    ]
    assert [stage.elapsed for stage in view.stages] == [3.0, 5.0, None]
    assert view.hint is not None
    assert view.hint.startswith("job.retry_failed()")


def test_errors_that_differ_only_in_numbers_are_one_group_with_its_first_task_in_detail(store):
    failed_job(store)
    view = snapshot(store, JOB, now=500.0)

    (group,) = view.errors
    assert (group.tasks, group.error_type, group.fate) == (2, "RasterioIOError", "unknown, retried")
    assert group.where == "read in tiles.py, line 12"
    assert "permanent=..." in group.why
    details = dict(group.details)
    assert details["Tasks"] == "s2-0, s2-4"
    assert details["Attempts"].splitlines() == [
        "1, no wait: failed after 1.0 s: RasterioIOError: tile 0 is broken",
        "2, waited 1.0 s: failed after 1.0 s: RasterioIOError: tile 0 is broken",
    ]
    masked = TRACEBACK.replace("hunter2", "***")
    assert details["Whole traceback"] == masked
    assert details["Traceback"] == masked.replace(FOREIGN_FRAME, FOLDED_FRAME)


def test_a_failure_that_the_policy_did_not_retry_is_not_said_to_have_been_retried(store):
    lease = started(store)
    fail(store, lease, planned(store, lease, 1, 1))
    (group,) = snapshot(store, JOB, now=500.0).errors
    assert group.fate == "unknown, not retried"
    assert group.why.endswith("Here the policy allowed no retry.")


def test_S44_secrets_are_masked_in_every_part_of_a_snapshot(store):
    failed_job(store)
    view = snapshot(store, JOB, now=500.0)
    assert "hunter2" not in repr(view)
    assert dict(view.parameters) == {"folder": '"/data"', "password": '"***"'}
    assert '"api_key": "***"' in dict(view.errors[0].details)["Parameters of the task"]
    drawn = snapshot(store, JOB, now=500.0, secrets=["folder"])
    assert dict(drawn.parameters) == {"folder": '"***"', "password": '"hunter2"'}


@pytest.mark.parametrize("secret", ['{"a":[{"token":"hunter2"}]}', '{"url":"https://me:hunter2@host/x"}'])
def test_S44_secrets_are_masked_in_the_preview_of_the_result_however_long_it_is(store, secret):
    completed_job(store, json.loads(secret))
    assert "hunter2" not in repr(snapshot(store, JOB, now=500.0))
    completed_job(store, {**json.loads(secret), "rest": ["x" * 1000] * 100}, job_id="b" * 64)
    view = snapshot(store, "b" * 64, now=500.0)
    assert view.result_preview is not None
    assert "***" in view.result_preview
    assert "hunter2" not in view.result_preview


def test_S34_a_fallback_result_is_shown_as_completed_with_errors_and_how_to_mend_it(store):
    fallback = {"status": "completed_with_errors", "finalization_error": "'bounds'", "error_type": "KeyError"}
    completed_job(store, {**fallback, "fallback": True}, TRACEBACK)
    view = snapshot(store, JOB, now=500.0)

    assert (view.status, view.with_errors, view.state) == ("completed", True, "completed with errors")
    assert view.error == "finalize_job failed: KeyError: 'bounds'"
    assert view.hint is not None
    assert view.hint.startswith("job.refinalize()")
    assert "completed with errors" in text_of(job_html(view))
    assert "completed with errors" in job_text(view).splitlines()[0]
    assert [row.state for row in listing(store, now=500.0)] == ["completed with errors"]


def test_S34_a_result_that_only_speaks_of_errors_is_a_result(store):
    completed_job(store, {"status": "completed_with_errors", "note": '"fallback": true'})
    view = snapshot(store, JOB, now=500.0)
    assert view.state == "completed"
    assert view.result_preview is not None


def test_S36_a_job_that_nobody_drives_half_way_is_shown_as_interrupted(store):
    lease = started(store)
    planned(store, lease, 1, 3)
    driven = snapshot(store, JOB, now=141.0)
    assert (driven.state, driven.elapsed, driven.hint) == ("processing", 40.0, None)
    assert driven.driver == "process 4242, since 12:00"

    store.release(lease)
    left = snapshot(store, JOB, now=141.0)
    assert (left.state, left.elapsed) == ("interrupted", None)
    assert left.hint is not None
    assert left.hint.startswith('session.job("3fa93fa9").resume()'), "what ran it never returned: it has no handle yet"


def test_a_rerun_shows_its_own_tasks_and_not_those_that_are_history(store):
    lease = failed_job(store)
    store.change_job(lease, "rerun", now=120.0)
    store.change_job(lease, "start", now=121.0)
    planned(store, lease, 1, 2, now=122.0)
    view = snapshot(store, JOB, now=130.0)
    assert [dict(stage.counts) for stage in view.stages] == [{"queued": 2}, {}, {}]
    assert (view.errors, view.failed) == ((), 0)


def test_an_unknown_job_is_refused_by_name(store):
    with pytest.raises(JobNotFound, match=r"has no job 'c0ffee'.*session.jobs\(\)"):
        snapshot(store, "c0ffee", now=0.0)


def test_parameters_too_large_to_read_are_not_drawn_but_named(store):
    started(store, files=["x" * 100] * 10_000)
    ((name, value),) = snapshot(store, JOB, now=500.0).parameters
    assert (name, value) == ("parameters", "1.0 MB of JSON: see job.parameters")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("tile 17 is broken", "tile 4 is broken"),
        ("no band 'red'", "no band 'near infrared'"),
        ("cannot open /data/a b.tif", "cannot open /other/a b.tif"),
        ("job 3fa9c1 is gone", "job b2 is gone"),
    ],
)
def test_messages_of_one_shape_fold_to_the_same(one, other):
    assert folded(one) == folded(other) != folded("something else went wrong")


def test_the_place_of_an_error_is_the_last_frame_of_the_users_own():
    assert place(TRACEBACK) == "read in tiles.py, line 12"
    assert place(TRACEBACK.replace("/home/me/", "/venv/lib/python3.11/")) == "open in __init__.py, line 300"
    assert place(CHAIN) == "stat in a cell, line 15"
    assert place("") is None


CHAIN = """Traceback (most recent call last):
  File "/home/me/tiles.py", line 4, in read
    return open(path).read()
           ^^^^^^^^^^
FileNotFoundError: [Errno 2] No such file or directory: '/data/1.tif'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/tmp/ipykernel_77/123.py", line 13, in stat
    read(path)
RuntimeError: tile 1
has two lines

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/tmp/ipykernel_77/123.py", line 15, in stat
    tidy()
KeyError: 'tidy'
"""


def test_the_exceptions_that_led_to_an_error_are_told_in_order():
    assert causes(CHAIN) is not None
    assert (causes(CHAIN) or "").splitlines() == [
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/1.tif'",
        "which caused: RuntimeError: tile 1",
        "and while that was handled: KeyError: 'tidy'",
    ]
    assert causes(TRACEBACK) is None
    assert causes("") is None
    assert cause(CHAIN) == "FileNotFoundError: [Errno 2] No such file or directory: '/data/1.tif'"
    assert cause(TRACEBACK) is cause("") is cause(None) is cause(b"E: bytes") is None
    lost = CHAIN.replace(CHAIN.splitlines()[4], "[... 9,000 characters left out ...]")
    assert cause(lost) is None, "what was cut off is not guessed"


def test_frames_of_libraries_are_folded_and_nothing_else_of_a_traceback():
    assert fold(TRACEBACK) == TRACEBACK.replace(FOREIGN_FRAME, FOLDED_FRAME)
    assert fold(CHAIN) == CHAIN
    deep = TRACEBACK.replace(FOREIGN_FRAME, "\n".join([FOREIGN_FRAME] * 40))
    assert fold(deep) == TRACEBACK.replace(
        FOREIGN_FRAME, FOLDED_FRAME.replace("1 library frame", "40 library frames, the last")
    )
    cython = '  File "rasterio/_io.pyx", line 972, in rasterio._io.DatasetReaderBase._read'
    assert fold(TRACEBACK.replace(FOREIGN_FRAME, cython)).count("[1 library frame: rasterio/_io.pyx, line 972") == 1
    alien = TRACEBACK.replace("/home/me/", "/venv/lib/python3.11/")
    assert fold(alien) == alien, "where no frame is the user's own, all of them count"


STACK = f"""Stack (most recent call first):
  File "/venv/lib/python3.11/ssl.py", line 9 in read
  File "/venv/lib/python3.11/site-packages/requests/api.py", line 7 in get
  File "/home/me/tiles.py", line 12 in read
  File "{worker.__file__}", line 189 in _run_task
  File "/usr/lib/python3.11/multiprocessing/process.py", line 108 in run
  File "<string>", line 1 in <module>
"""


def test_the_stack_of_a_task_that_timed_out_is_folded_like_a_traceback_from_its_newest_frame():
    assert fold(STACK).splitlines() == [
        "Stack (most recent call first):",
        "  [2 library frames, the last: python3.11/ssl.py, line 9, in read]",
        '  File "/home/me/tiles.py", line 12 in read',
        "  [3 library frames, the last: geoflow/executors/worker.py, line 189, in _run_task]",
    ]
    assert place(STACK) is None, "such tasks are one group, wherever they were when their time was over"


FRAMES = [
    '  File "/a/site-packages/x.py", line 1, in f',
    '  File "/a/mine.py", line 1, in f',
    "    raise E",
    "E: 1",
    "",
]


@given(st.lists(st.sampled_from(FRAMES)).map("\n".join))
def test_folding_never_adds_lines_and_keeps_what_is_no_frame(traceback):
    assert len(fold(traceback).splitlines()) <= len(traceback.splitlines())
    kept = [line for line in traceback.splitlines() if not line.startswith(" ")]
    assert [line for line in fold(traceback).splitlines() if not line.startswith(" ")] == kept


def test_why_tells_a_worker_that_died_from_the_death_of_the_process_that_drives_the_job():
    died, killed = why("WorkerDied", "lost", retries=1), why("EngineLost", "lost", retries=0)
    assert died.startswith("Its process ended while the task ran, which is retried")
    assert "drives the job" not in died
    assert why("WorkerDied", "lost", retries=0).endswith("Here the policy allowed no retry.")
    assert "each time that its worker, or the process that drives the job, was killed" in killed
    assert "not run again by itself" in killed


# Times


def taken_up(store: Store, at: float) -> Lease:
    """The job, interrupted and taken up again at *at*."""
    row = store.job(JOB)
    assert row is not None
    since = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return store.claim(row.job_key, json.dumps({"pid": 4243, "since": since}))


def test_the_time_left_is_that_of_the_stage_at_the_pace_of_its_tasks(store):
    lease = started(store)
    keys = planned(store, lease, 1, 100, now=102.0)
    assert snapshot(store, JOB, now=112.0).remaining is None, "nothing has ended"
    complete(store, lease, keys[:25])
    view = snapshot(store, JOB, now=112.0)
    assert view.remaining == pytest.approx(30.0)
    for drawn in (text_of(job_html(view)), job_text(view)):
        assert "about 30 s left of stage 1" in drawn
    complete(store, lease, keys[25:])
    assert snapshot(store, JOB, now=112.0).remaining is None, "nothing is left of this stage"


def test_what_ended_before_an_interrupt_does_not_count_for_the_pace_of_a_job_taken_up(store):
    lease = started(store)
    keys = planned(store, lease, 1, 100, now=102.0)
    complete(store, lease, keys[:50])
    store.release(lease)
    assert snapshot(store, JOB, now=112.0).remaining is None, "nobody drives it"
    lease = taken_up(store, at=200.0)
    assert snapshot(store, JOB, now=201.0).remaining is None
    complete(store, lease, keys[50:60], at=209.0)
    assert snapshot(store, JOB, now=210.0).remaining == pytest.approx(40.0)


def test_the_time_left_of_the_last_stage_is_that_of_the_job():
    view = a_view("x", status="processing", remaining=0.2, stages=(a_stage(number=1),))
    assert "about 1 s left ·" in text_of(job_html(view))
    assert "about 2 min 05 s left" in job_text(view._replace(remaining=125.2))


def test_a_stage_says_how_long_its_tasks_ran_and_waited(store):
    lease = started(store)
    complete(store, lease, planned(store, lease, 1, 3, now=102.0), at=105.5)
    stage, *later = snapshot(store, JOB, now=500.0).stages
    assert (stage.ran, stage.waited) == (1.0, 2.5)
    assert [each.ran for each in later] == [None, None]
    assert 'title="mean run 1.0 s, mean wait 2.5 s"' in job_html(snapshot(store, JOB, now=500.0))


def test_the_times_of_many_tasks_are_those_of_some_all_over_the_stage(store):
    lease = started(store)
    keys = planned(store, lease, 1, SAMPLE * 10, now=100.0)
    half = len(keys) // 2
    complete(store, lease, keys[:half], at=110.0)
    complete(store, lease, keys[half:], at=130.0)
    assert snapshot(store, JOB, now=500.0).stages[0].waited == pytest.approx(19.0)


# Tasks, one by one


def test_tasks_are_listed_the_worst_first_and_of_these_the_last_stage_first(store):
    lease = failed_job(store)
    assert [" ".join(line.label.split()) for line in listed(store, JOB).tasks] == [
        "✗ failed s2-0 stage 2 1.0 s RasterioIOError: tile 0 is broken, after 1 retry",
        "✗ failed s2-4 stage 2 1.5 s RasterioIOError: tile 6 is broken",
        "✓ completed s2-1 stage 2 1.0 s",
        "✓ completed s2-2 stage 2 1.0 s",
        "✓ completed s2-3 stage 2 1.0 s",
        "✓ completed s1-0 stage 1 1.0 s",
    ]
    assert listed(store, JOB).errors == (("RasterioIOError", 2),)
    store.release(lease)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"status": "failed"}, ["s2-0", "s2-4"]),
        ({"error_type": "RasterioIOError", "order": "longest"}, ["s2-4", "s2-0"]),
        ({"error_type": "ValueError"}, []),
        ({"part": "S1-"}, ["s1-0"]),
        ({"part": "TILE 6 IS"}, ["s2-4"]),
        ({"part": '"i": 3'}, ["s2-3"]),
        ({"part": "'; DROP TABLE task"}, []),
        ({"order": "planned", "status": "completed"}, ["s1-0", "s2-1", "s2-2", "s2-3"]),
        ({"order": "longest"}, ["s2-4", "s2-0", "s2-1", "s2-2", "s2-3", "s1-0"]),
    ],
)
def test_tasks_are_found_by_state_error_and_any_of_their_texts_in_the_order_that_is_asked_for(store, wanted, found):
    failed_job(store)
    listing = listed(store, JOB, Wanted(**wanted))
    assert [line.task_id for line in listing.tasks] == found
    assert listing.total == len(found)
    assert [line.task_id for line in listed(store, JOB, Wanted(**wanted), first=1).tasks] == found[1:]


def test_a_task_that_runs_is_listed_with_the_time_since_it_began(store):
    lease = started(store)
    (key,) = planned(store, lease, 1, 1)
    store.commit(lease, [Move("start", [key])], [])
    (line,) = listed(store, JOB, running={"s1-0": 12.0}).tasks
    assert " ".join(line.label.split()) == "▸ processing s1-0 stage 1 for 12.0 s"


def test_S44_a_list_of_tasks_masks_what_their_errors_tell(store):
    lease = started(store)
    fail(store, lease, planned(store, lease, 1, 1), "password=hunter2")
    (line,) = listed(store, JOB).tasks
    assert "password=***" in line.label


def test_S44_a_task_is_shown_with_all_that_is_known_of_it_and_without_its_secrets(store, tmp_path):
    lease = failed_job(store)
    log = tmp_path / "log"
    lines = [
        {"job_id": JOB, "task_id": "s2-0", "time": "12:00", "level": "INFO", "logger": "mine", "message": "token=abc"},
        {"job_id": JOB, "task_id": "s2-4", "message": "not this task"},
        {"job_id": "b" * 64, "task_id": "s2-0", "message": "not this job"},
    ]
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"job_id": "' + JOB + '", "task_id": "s2-0" cut off')
    key = listed(store, JOB).tasks[0].key
    view = task(store, JOB, key, secrets=("token", "password", "api_key"), log=log)
    assert view is not None
    assert (view.task_id, view.state, view.error) == ("s2-0", "failed", "RasterioIOError: tile 0 is broken")
    assert view.facts == ("stage 2 read", "number 0", "read_tile", "1.0 s", "1 retry")
    details = dict(view.details)
    assert list(details) == ["Parameters", "Attempts", "Traceback", "Whole traceback", "What it printed", "Log"]
    assert len(details["Attempts"].splitlines()) == 2
    assert details["Log"] == "12:00 INFO mine token=*** (attempt ?)"
    assert "hunter2" not in repr(view)
    assert task(store, "c" * 64, key, secrets=()) is None, "a key of another job"
    store.release(lease)


def test_a_task_that_waits_for_its_retry_says_until_when(store):
    lease = started(store)
    (key,) = planned(store, lease, 1, 1)
    store.commit(
        lease,
        [Move("start", [key]), Move("retry", [key], not_before=107.0)],
        [Attempt(key, 1, "failed", 105.0, 106.0, failure=failure("tile 0 is broken"))],
    )
    view = task(store, JOB, key, secrets=())
    assert view is not None
    assert view.facts[-2:] == ("1 retry", "is tried again at 1970-01-01 00:01:47 UTC")
    assert view.why is None


# Bars


def test_a_stage_says_how_many_of_its_tasks_wait_for_their_retries_while_the_job_is_driven(store):
    lease = started(store)
    first, second, *_ = keys = planned(store, lease, 1, 5)
    for key, said in ((first, "1 waits for its retry"), (second, "2 wait for their retries")):
        failed = Attempt(key, 1, "failed", 105.0, 106.0, failure=failure("tile is broken"))
        store.commit(lease, [Move("start", [key]), Move("retry", [key], not_before=107.0)], [failed])
        view = snapshot(store, JOB, now=106.0)
        assert said in text_of(job_html(view))
        assert f"    {said}" in job_text(view).splitlines()
    store.commit(lease, [Move("start", [first])], [])
    assert snapshot(store, JOB, now=107.0).stages[0].waiting == 1, "the other one runs"
    store.release(lease)
    assert snapshot(store, JOB, now=106.0).stages[0].waiting == 0, "nothing waits where nobody drives the job"
    assert len(keys) == 5


@given(st.lists(st.integers(0, 10_000), min_size=5, max_size=5).filter(any), st.sampled_from([4, 10, 250]))
def test_a_bar_hides_no_state_and_exaggerates_none_by_more_than_a_cell_for_each(numbers, cells):
    counts = {state: number for state, number in zip(STATES, numbers, strict=True) if number}
    stage = a_stage(counts=counts, tasks=sum(numbers))
    shares = dict(stage.shares(cells))
    assert shares.keys() == counts.keys()
    assert min(shares.values()) >= 1
    assert sum(shares.values()) == max(cells, len(counts))
    for state, given_cells in shares.items():
        assert abs(given_cells - cells * counts[state] / stage.tasks) <= len(counts)


def test_a_thousandth_of_failures_is_a_sliver_and_72_of_84_done_are_no_crosses():
    few = a_stage(counts={"completed": 99_900, "failed": 100}, tasks=100_000)
    assert few.shares(250) == [("completed", 249), ("failed", 1)]
    stage = a_stage(number=1, counts={"completed": 72, "failed": 12}, tasks=84)
    (row,) = (each for each in job_text(a_view("x", stages=(stage,), errors=())).splitlines() if "72/84" in each)
    assert row.count("█") == 9
    assert row.count("✗") == 2, "one of them is the stage's state"
    assert row.endswith("72/84 · 12 failed")


def test_a_stage_that_is_at_work_is_processing_whatever_has_failed_and_says_how_long_yet():
    counts = {"completed": 182, "failed": 1, "processing": 8, "queued": 309}
    at_work = a_stage(counts=counts, tasks=500, at_work=True, rate=29.2, left=10.1)
    assert at_work.state == "processing"
    assert at_work.facts == ["182/500", "1 failed", "36 %", "29/s", "10 s left"]
    assert at_work._replace(at_work=False).state == "failed"
    assert at_work._replace(at_work=False).facts == ["182/500", "1 failed"]
    done = at_work._replace(counts={"completed": 499, "failed": 1})
    assert (done.state, done.facts) == ("failed", ["499/500", "1 failed"])


@pytest.mark.parametrize(("rate", "said"), [(1234.5, "1,234/s"), (2.54, "2.5/s"), (0.2, "12/min"), (1 / 1200, "3.0/h")])
def test_a_pace_is_said_in_a_unit_that_can_be_imagined(rate, said):
    assert said in a_stage(at_work=True, rate=rate).facts


def test_of_forty_stages_those_that_are_done_and_those_to_come_have_one_row_each():
    done = [a_stage("x", number=n, counts={"completed": 5}, tasks=5, elapsed=2.0) for n in range(1, 18)]
    now = a_stage("now", number=18, at_work=True)
    to_come = [a_stage("x", number=n, planned=False, tasks=0, counts={}, elapsed=None) for n in range(19, 41)]
    before, here, after = together([*done, now, *to_come])
    assert (before.label, before.facts, before.elapsed) == ("1–17: 17 stages", ["85/85"], 34.0)
    assert (here, after.label, after.facts) == (now, "19–40: 22 stages", ["not planned"])
    assert together(done[:12]) == done[:12], "so many have their place"
    failed = [each._replace(counts={"failed": 5}) for each in done]
    assert together(failed) == failed, "what failed is never folded"


@a_share(0.2)
@given(st.integers(1, 900), st.data())
def test_the_counts_that_the_store_makes_are_those_of_its_tasks(tasks, data):
    store = SqliteStore(":memory:")
    lease = started(store)
    keys = planned(store, lease, 1, tasks)
    failed = sorted(data.draw(st.sets(st.sampled_from(keys), max_size=10)))
    done = [key for key in keys[: tasks // 2] if key not in failed]
    complete(store, lease, done)
    fail(store, lease, failed)
    states = ["failed" if key in failed else "completed" if key in done else "queued" for key in keys]
    view = snapshot(store, JOB, now=500.0)
    assert view.stages[0].counts == Counter(states)
    assert sum(group.tasks for group in view.errors) == view.failed == len(failed)
    store.close()


# The order of an error


def test_an_error_is_told_with_its_line_then_the_users_frames_and_the_rest_folded(store, tmp_path):
    file = tmp_path / "tiles.py"
    file.write_text("import rasterio\n\ndef read(path):\n    with rasterio.open(path) as it:\n        return it\n\n\n")
    os.utime(file, (50.0, 50.0))
    frame = f'  File "{file}", line 4, in read\n    with rasterio.open(path) as it:\n'
    traceback = f"Traceback (most recent call last):\n{frame}E: x\n"

    def source_of(at: float) -> list[str]:
        lease = started(store, job_id=f"{int(at):064x}")
        (key,) = planned(store, lease, 1, 1)
        failed = Attempt(key, 1, "failed", at, at, failure=failure("x")._replace(traceback=traceback), output="said\n")
        store.commit(lease, [Move("start", [key]), Move("fail", [key])], [failed])
        store.change_job(lease, "fail", now=at, error="x")
        store.end_job(lease, error=None, now=at)
        store.release(lease)
        view = snapshot(store, f"{int(at):064x}", now=500.0)
        read = checked(job_html(view))
        told = [name for name in (*read.text,) if name in ("Traceback", "Attempts", "Parameters of the task")]
        assert told == ["Traceback", "Attempts", "Parameters of the task"]
        assert [tag for tag, _ in read.elements if tag == "details"] == ["details"] * 4, "these and what it printed"
        assert f"{HIT}    4  " in job_text(view)
        (group,) = view.errors
        return (group.source or "").splitlines()

    assert source_of(100.0) == [
        "     2",
        "     3  def read(path):",
        f"{HIT}    4      with rasterio.open(path) as it:",
        "     5          return it",
        "     6",
    ]
    assert source_of(40.0) == [f"{HIT}    4  with rasterio.open(path) as it:"], "the file has changed since"
    file.write_text("\n" * 8)
    os.utime(file, (60.0, 60.0))
    assert source_of(101.0) == [f"{HIT}    4  with rasterio.open(path) as it:"], "it is not that line any more"


# HTML


@pytest.mark.parametrize("text", HOSTILE)
def test_S45_hostile_text_comes_out_as_the_text_that_it_is(text):
    assert sum(text in part for part in checked(job_html(a_view(text))).text) > 10


@a_share(0.4)
@given(st.text(st.characters()), st.integers(40, 120))
def test_S45_no_text_breaks_out_of_a_drawing_or_a_terminal(text, width):
    checked(job_html(a_view(text)))
    for lines in (job_text(a_view(text), width), jobs_text([a_view(text)], width)):
        lines.encode()
        for line in lines.split("\n"):
            assert all(char.isprintable() or unicodedata.category(char) not in ("Cc", "Zl", "Zp") for char in line)
            assert cell_len(line) <= width


def test_S45_the_style_fetches_nothing_and_touches_nothing_outside():
    style = checked(job_html(a_view("x"))).style
    assert "url(" not in style
    assert "@import" not in style
    assert "</" not in style
    plain_rules = re.sub(r"/\*.*?\*/|@media print \{", "", style, flags=re.DOTALL)
    rules = [rule.partition("{")[0] for rule in plain_rules.split("}")]
    for selector in ",".join(rule for rule in rules if rule.strip()).split(","):
        assert ".geoflow" in selector, selector


def test_S45_control_characters_of_a_terminal_are_not_drawn(store):
    failed_job(store)
    view = snapshot(store, JOB, now=500.0)
    assert dict(view.errors[0].details)["What it printed"] == "a\x1b[31mb token=***"
    assert "\x1b" not in job_text(view) + job_html(view)
    assert "ab token=***" in text_of(job_html(view))


def test_a_failed_job_shows_its_errors_with_the_first_group_open(store):
    failed_job(store)
    store.release(Lease(1, JOB, 1))
    html = job_html(snapshot(store, JOB, now=500.0))
    text = text_of(html)
    for part in (
        "✗ failed tile_stats 3fa93fa9",
        "Errors: 2 failed tasks in 1 group",
        "RasterioIOError",
        "(unknown, retried)",
        "Raised by read in tiles.py, line 12",
        "waited 1.0 s: failed",
        'File "/home/me/tiles.py", line 12, in read',
        "job.retry_failed()",
    ):
        assert part in text
    opened = ["open" in attributes for tag, attributes in checked(html).elements if tag == "details"]
    assert opened == [True, False, False, False, False], "the error is, what is told of it last is not"
    opened = ["open" in attributes for tag, attributes in checked(job_html(a_view("x"))).elements if tag == "details"]
    assert opened == [True, False, False, False, False, False], "of the first group alone"


def test_no_failed_task_is_left_out_of_the_account(store):
    lease = started(store)
    keys = planned(store, lease, 1, 400)
    for word, some in zip("abcdefghij", (keys[i::10] for i in range(10)), strict=True):
        fail(store, lease, some, f"the {word} way")
    view = snapshot(store, JOB, now=500.0)
    assert (view.failed, sum(group.tasks for group in view.errors)) == (400, 160)
    for drawn in (text_of(job_html(view)), job_text(view)):
        assert "Errors: 160 failed tasks in 8 groups, 240 more in job.errors()" in drawn


@pytest.mark.parametrize("state", ["queued", "processing", "completed", "failed", "cancelled"])
def test_every_state_is_a_word_and_a_symbol_of_its_own_and_not_only_a_colour(state):
    stage = a_stage(counts={state: 3}, tasks=3)
    view = a_view("x", status=state, stages=(stage,), driver="process 1", errors=())
    symbols = {job_text(view._replace(status=other))[0] for other in STATES}
    assert len(symbols) == len(STATES)
    symbol = job_text(view)[0]
    assert text_of(job_html(view)).startswith(f"{symbol} {state} x")
    assert f"Tasks: 3 {state}" in job_html(view)
    assert f"{symbol} {state} 2 read" in text_of(job_html(view))


def test_what_is_drawn_is_told_to_a_screen_reader_too():
    elements = checked(job_html(a_view("read"))).elements
    drawings = [attributes for tag, attributes in elements if tag == "svg"]
    assert all(attributes["role"] == "img" for attributes in drawings)
    assert [attributes["aria-label"] for attributes in drawings] == [
        "read",
        "Tasks: 99,987 completed, 1 queued, 1 cancelled, 1 processing, 10 failed",
        "30 %",
    ]
    assert elements[0] == ("div", {"class": "geoflow", "role": "region", "aria-label": "Job read 3fa93fa9: failed"})
    levels = [attributes["aria-level"] for _, attributes in elements if attributes.get("role") == "heading"]
    assert levels == ["3", "4"]
    assert all("tabindex" in attributes for tag, attributes in elements if tag == "pre")


# Size


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_a_hundred_thousand_tasks_are_drawn_in_the_space_of_a_hundred(store):
    sizes = {}
    for job_id, tasks in (("1" * 64, 100), ("5" * 64, 100_000)):
        lease = started(store, job_id=job_id, stages=STAGES[:1])
        keys = planned(store, lease, 1, tasks)
        store.commit(lease, [Move("start", keys)], [])
        store.commit(lease, [Move("complete", keys[: tasks // 2])], [])
        failed = [Attempt(key, 1, "failed", 1.0, 2.0, failure=failure(f"tile {key}")) for key in keys[tasks // 2 :: 3]]
        store.commit(lease, [Move("fail", [attempt.key for attempt in failed])], failed)
        view = snapshot(store, job_id, now=500.0)
        assert view.failed == len(failed)
        assert sum(group.tasks for group in view.errors) == min(len(failed), 200)
        sizes[tasks] = len(job_html(view))
    assert sizes[100_000] < 1.5 * sizes[100]
    assert sizes[100_000] < 20_000


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_no_question_to_the_store_goes_through_all_of_its_tasks_or_attempts(store):
    failed_job(store)
    asked: list[str] = []
    with store.reading() as connection:
        connection.set_trace_callback(asked.append)
        snapshot(store, JOB, now=500.0)
        listing(store, now=500.0)
        task(store, JOB, listed(store, JOB).tasks[0].key, ())
        connection.set_trace_callback(None)
        plans = [str(row[3]) for sql in asked for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()]
    assert any("SEARCH" in step for step in plans)
    # SQLite would make an index of a whole table, each time.
    assert not [step for step in plans if "AUTOMATIC" in step or step in ("SCAN t", "SCAN a")]


def test_the_worst_drawing_stays_below_120_kilobytes():
    line = (
        '  File "/home/me/a/long/path/to/tiles.py", line 12, in read_tile\n    rasterio.open(path)  # <why> & "how"\n'
    )
    text = (line * 100)[:2500]
    details = {"Tasks": text[:600], "Message": text[:1000], "Attempts": text[:900], "Traceback": text}
    details |= {"Parameters of the task": text[:600], "What it printed": text[:1000]}
    about = ("E" * 300, text[:1000], "w" * 200, "unknown", text[:200], tuple(details.items()))
    groups = tuple(ErrorGroup(n, *about) for n in range(8))
    stages = (*(a_stage("s" * 200),) * 40,)
    parameters = tuple((f"name_{n}" * 8, "v" * 200) for n in range(21))
    view = a_view("x", errors=groups, stages=stages, parameters=parameters, traceback=text, result_preview=text[:1500])
    assert len(job_html(view).encode()) < 120_000
    assert len(job_text(view)) < 20_000


# Text


def test_a_failed_job_fits_a_terminal_of_eighty_columns(store):
    failed_job(store)
    store.release(Lease(1, JOB, 1))
    lines = job_text(snapshot(store, JOB, now=500.0)).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "✗  failed  tile_stats  3fa93fa9"
    assert lines[1].split(", ")[0] == "  9.0 s"
    stages = [" ".join(line.split()) for line in lines if line[:4] in ("✓ 1 ", "✗ 2 ", "· 3 ")]
    assert stages == [
        "✓ 1 list single 3.0 s ██████████ 1/1",
        "✗ 2 read fan out 5.0 s ██████✗✗✗✗ 3/5 · 2 failed",
        "· 3 merge fan in not planned",
    ]
    assert lines[-1] == "Next: job.retry_failed()  # Run the failed tasks again, with the code of now."


def few_lines(view: JobView, title: str) -> list[str]:
    """What the text has below *title*."""
    lines = job_text(view).splitlines()
    below = lines[lines.index(title) + 1 :]
    return [line.strip() for line in itertools.takewhile(lambda line: line.startswith("    "), below)]


def test_text_has_the_first_lines_of_json_and_says_how_many_are_left(store):
    completed_job(store, {f"tile_{n:03}": "x" * 20 for n in range(200)})
    view = snapshot(store, JOB, now=500.0)
    shown = few_lines(view, "Result")
    assert shown[:2] == ["{", '"tile_000": "xxxxxxxxxxxxxxxxxxxx",']
    assert (len(shown), shown[-1]) == (13, "… 190 more lines"), "of all 202, though HTML has no more than some either"
    assert "more lines" in text_of(job_html(view))
    group = a_view("x").errors[0]._replace(details=(("Parameters of the task", "a\n" * 20),))
    assert few_lines(a_view("x", errors=(group,)), "  Parameters of the task")[-1] == "… 8 more lines"


def test_text_has_the_last_lines_of_what_was_printed_and_says_how_many_are_before():
    said = "\n".join(map(str, range(35)))
    group = a_view("x").errors[0]._replace(details=(("What it printed", said), ("Traceback", "a\nb")))
    view = a_view("x", errors=(group,))
    assert few_lines(view, "  What it printed") == ["… 23 lines before", *map(str, range(23, 35))]
    assert few_lines(view, "  Traceback") == ["a", "b"]


def test_a_message_that_a_terminal_is_too_narrow_for_is_told_whole_below():
    for words in (20, 60):  # the longer one is among the details already
        message = " ".join(f"word{n}" for n in range(words))
        details = (("Tasks", "t0"), *([("Message", message)] if words == 60 else []))
        group = ErrorGroup(1, "ContractViolationError", message, None, "contract, not retried", "", details)
        text = job_text(a_view("x", errors=(group,)))
        assert " ".join(text.split()).count(f"Message: {message}") == 1
        assert max(map(len, text.splitlines())) <= 80
    short = job_text(a_view("x", errors=(ErrorGroup(1, "E", "short", None, "", "", ()),)))
    assert "Message" not in short
    endless = ErrorGroup(1, "E", "x " * 5000, None, "", "", ())
    assert sum(line.endswith("…") for line in job_text(a_view("x", errors=(endless,))).splitlines()) == 2


def test_what_is_cut_off_parameters_and_errors_has_a_sign():
    view = a_view(
        "x", error="word " * 500, errors=(), traceback=None, parameters=tuple(("n", "v" * 50) for _ in range(20))
    )
    assert [line.rstrip()[-1] for line in job_text(view).splitlines() if line.endswith("…")] == ["…", "…"]


def test_the_counts_of_a_stage_are_never_cut_off_in_a_terminal():
    stage = a_stage("名前" * 50, counts={"completed": 99_000, "failed": 1_000}, at_work=True, rate=9.0, left=7.0)
    line = job_text(a_view("x", stages=(stage,), errors=())).splitlines()
    assert any("99,000/100,000 · 1,000 failed" in each for each in line)


def test_a_table_of_jobs_has_a_line_for_each(store):
    failed_job(store)
    completed_job(store, {"tiles": 3}, job_id="b" * 64)
    rows = listing(store, now=500.0)
    assert [(row.job_id, row.state, row.failed) for row in rows] == [("b" * 64, "completed", 0), (JOB, "failed", 2)]
    assert jobs_text(rows).splitlines() == [
        "✓ completed  bbbbbbbb  tile_stats  10.0 s  1/3  1/1",
        "✗ failed     3fa93fa9  tile_stats  9.0 s   2/3  4/6, 2 failed",
    ]
    assert listing(store, now=500.0, limit=1) == rows[:1]


def test_S45_jobs_are_a_table_in_html_too():
    views = [a_view("x", job_id="b" * 64, status="completed", errors=()), *map(a_view, HOSTILE)]
    html = jobs_html(views, HOSTILE[0], "these are all")
    assert all(sum(hostile in part for part in checked(html).text) for hostile in HOSTILE)
    assert "✓ completed bbbbbbbb x 59.0 s 1/1 99,987/100,000, 10 failed 1970-01-01 00:01:40 UTC" in text_of(html)
    assert text_of(html).endswith("these are all")
    assert "<table" not in jobs_html([], "Jobs", "none yet")


def test_the_parts_of_a_live_drawing_are_the_whole_without_its_style():
    view = a_view("read")
    head, stages, title, errors, more = job_parts(view)
    parts = (head, stages, title, *itertools.chain.from_iterable(group[1:] for group in errors), more)
    whole = text_of(job_html(view)).replace("Tasks read", "For one t-7", 1).replace("Tasks read", "For one t-3", 1)
    assert " ".join(map(text_of, parts)) == whole, "but for what changes with each task that fails"
    assert "<style>" not in "".join(parts)
    assert " ".join(map(text_of, job_halves(view))) == text_of(job_html(view))


def test_an_empty_store_has_no_lines(store):
    assert listing(store, now=0.0) == ()
    assert jobs_text([]) == ""
