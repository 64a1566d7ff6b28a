"""`gf.Limit`: how many tasks run at once, and begin in a second, over all that use a store."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.errors import DefinitionError
from geoflow.jobtypes.registry import _kept, _odd
from geoflow.support.admission import Admission, Place, admitted
from tests.helpers.sessions import OpenSession
from tests.helpers.waiting import wait_until
from tools.limits import measure


def asking(name: str, **limits: Any) -> gf.JobType:
    """A job type whose tasks fail where another one runs at the same time."""
    t = gf.JobType(name)

    @t.stage
    def scan(p) -> list[int]:
        return list(range(p["tasks"]))

    @t.each(scan, limit=gf.Limit("service", **limits), retries=0)
    def call(item: int, p) -> int:
        import time

        os.close(os.open(p["lock"], os.O_CREAT | os.O_EXCL))
        time.sleep(0.01)
        os.unlink(p["lock"])
        return item

    return t


HOLD = """
import sys, time
from geoflow.support.admission import Admission, admitted

with admitted(Admission(sys.argv[1], "service", 1, 0.0, "at_once=1").admit()):
    print(flush=True)
    time.sleep(600)
"""


def folder(session: gf.Session) -> Path:
    return Path(session.runtime.limits_folder)


@pytest.mark.on_duckdb
def test_S57_a_limit_counts_over_all_jobs_of_a_store_whatever_their_type(
    open_session: OpenSession, store_name: str, tmp_path: Path
) -> None:
    session, lock = open_session(workers=2), str(tmp_path / "lock")
    types = [asking("ask", at_once=1), asking("look", at_once=1)]
    jobs = [session.submit(t, tasks=3, lock=lock, number=number) for t in types for number in range(2)]
    for job in jobs:
        job.wait()
    assert [job.error for job in jobs] == [None] * 4


def test_S57_what_waits_for_a_limit_occupies_no_worker_and_goes_on_when_its_holder_is_killed(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session(workers=1)
    command = [sys.executable, "-c", HOLD, str(folder(session))]
    other = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        waiting = session.submit(asking("ask", at_once=1), tasks=2, lock=str(tmp_path / "lock"))
        wait_until(lambda: len(waiting.tasks()) == 3)
        free = session.run("hello_world", n=3)  # on the only worker
        assert free.error is None
        assert list(waiting.tasks().status) == ["completed", "queued", "queued"]
        said = "2 wait under limit service (at_once=1)"
        assert said in str(waiting)
        assert said in waiting._repr_html_()
        assert said in str(open_session(workers=0).job(waiting.id)), "which has not its code"
    finally:
        other.kill()
        other.communicate()
    waiting.wait()
    assert waiting.error is None
    assert "under limit" not in str(waiting)


def test_S57_no_more_begin_in_a_second_than_a_limit_says(open_session: OpenSession, tmp_path: Path) -> None:
    session, began = open_session(workers=2), time.monotonic()
    jobs = [
        session.submit(asking("ask", at_once=1, per_second=20), tasks=3, lock=str(tmp_path / "l"), n=n) for n in (0, 1)
    ]
    for job in jobs:
        job.wait()
    assert [job.error for job in jobs] == [None, None]
    assert time.monotonic() - began >= 5 / 20, "six starts have five times between them"


def test_S57_a_worker_that_outlives_its_driver_is_waited_for(tmp_path: Path) -> None:
    first = Admission(str(tmp_path), "service", 1, 0.0, "at_once=1")
    place = first.admit()
    assert place is not None
    seen: list[str] = []

    def run(place: Place) -> None:
        with admitted(place):
            seen.append("second")

    with admitted(place):
        first.close()  # as when the driver is killed
        second = Admission(str(tmp_path), "service", 1, 0.0, "at_once=1")
        again = second.admit()
        assert again is not None
        thread = threading.Thread(target=run, args=(again,))
        thread.start()
        seen.append("first")
    thread.join(10)
    assert seen == ["first", "second"]
    second.close()


def test_S57_a_place_is_given_once_and_again_when_it_is_left(tmp_path: Path) -> None:
    one, two = (Admission(str(tmp_path), "a/b", 2, 0.0, "at_once=2") for _ in range(2))
    places = [one.admit(), two.admit()]
    assert {place.number for place in places if place is not None} == {0, 1}
    assert one.admit() is two.admit() is None
    assert places[0] is not None
    one.leave(places[0])
    assert two.admit() == places[0]
    one.close()
    two.close()


def test_S57_times_of_before_the_machine_began_hold_nobody_up(tmp_path: Path) -> None:
    import struct

    admission = Admission(str(tmp_path), "service", 2, 3600.0, "per_second=0.0003")
    (tmp_path / "service" / "sent").write_bytes(struct.pack("<d", time.monotonic() + 1e6))
    assert admission.admit() is not None
    assert admission.admit() is None
    assert 3000 < admission.again_in <= 3600
    admission.close()


def test_S57_a_limit_with_other_numbers_is_refused_by_name_while_jobs_use_it(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session, other = open_session(workers=0), Admission
    held = other(str(folder(session)), "service", 2, 0.2, "at_once=2, per_second=5")
    t = asking("ask", at_once=3)
    with pytest.raises(DefinitionError, match=r"'service' is at_once=3 here, but at_once=2, per_second=5 for jobs of"):
        session.submit(t, tasks=1, lock=str(tmp_path / "lock"))
    assert session.jobs().empty, "nothing is stored"
    held.close()
    assert session.run(t, tasks=1, lock=str(tmp_path / "lock")).error is None


def test_S57_two_stages_cannot_mean_different_limits_by_one_name(open_session: OpenSession) -> None:
    t = gf.JobType("twice")

    @t.stage(limit=gf.Limit("service", at_once=1))
    def scan() -> int:
        return 1

    @t.reduce(scan, limit=gf.Limit("service", at_once=2))
    def merge(one: int) -> dict[str, int]:
        return {}

    with pytest.raises(DefinitionError, match="Two stages of twice have limits 'service' with different numbers"):
        open_session(workers=0).submit(t)


@pytest.mark.parametrize(
    "given", [{}, {"at_once": 0}, {"at_once": "2"}, {"per_second": 0}, {"per_second": float("inf")}]
)
def test_S57_a_limit_without_a_number_that_limits_is_refused(given: Any) -> None:
    why = next(
        (f"{name}: Input should be .* \\(got {value!r}\\)" for name, value in given.items()), "It needs at_once="
    )
    with pytest.raises(ValueError, match=rf"^gf\.Limit\('service'\) is none\. {why}"):
        gf.Limit("service", **given)


def test_S57_an_exported_module_is_without_limits_and_says_so(open_session: OpenSession, tmp_path: Path) -> None:
    t = gf.JobType("service")

    @t.stage(limit=gf.Limit("nominatim", per_second=1), permanent=FileNotFoundError)
    def scan() -> list[int]:
        return [1]

    exported = gf.export(t, tmp_path, session=open_session(":memory:", workers=0))
    text = exported.module.read_text()
    assert "imit(" not in text
    assert '"permanent": ("builtins.FileNotFoundError",)' in text
    assert any("the limit 'nominatim' (per_second=1) is geoflow's alone" in note for note in exported.notes)


def test_S57_a_stage_of_the_contract_has_a_limit_too_and_another_value_is_the_authors() -> None:
    stage = {"number": 1, "name": "one", "task_type": "t", "limit": gf.Limit("service", at_once=2)}
    assert set(_kept(stage)) == {"limit"}
    assert set(_odd({**stage, "limit": 5})) == {"limit"}


def test_S57_no_limit_is_passed_when_processes_that_use_it_are_killed() -> None:
    _, too_many = measure(jobs=4, processes=2, kills=1, per_second=20)
    assert too_many == 0
