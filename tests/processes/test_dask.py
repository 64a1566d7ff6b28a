"""A Dask cluster of real processes as the pool: work goes on when one of them is killed."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geoflow.errors import JobFailed, ParameterError
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession, rows
from tests.helpers.waiting import wait_until

distributed = pytest.importorskip("distributed", reason='needs Dask: pip install "geoflow[dask]"')


@pytest.fixture
def client() -> Iterator[Any]:
    """A client of two worker processes with one thread each."""
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="CRITICAL"
    )
    client = distributed.Client(cluster)
    yield client
    client.close()
    cluster.close()


def hash_file(params: dict[str, Any]) -> dict[str, Any]:
    """The SHA-256 of a file, of its parts one after another; a line in ``trace`` says in which process."""
    digest = hashlib.sha256()
    with open(params["path"], "rb") as file:
        while part := file.read(1 << 16):
            digest.update(part)
    with open(params["trace"], "a") as trace:
        trace.write(f"{os.getpid()}\n")
    return {"success": True, "result": {"value": digest.hexdigest()}}


class Hashes(jobs.Acts):
    job_type = "hashes"


# By value: the workers need nothing of the tests on their path.
Hashes.__module__ = hash_file.__module__ = "__main__"


@pytest.mark.slow
def test_S30_300_tasks_all_complete_with_a_worker_killed_in_the_middle_and_give_what_local_slots_give(
    open_session: OpenSession, client: Any, tmp_path: Path
) -> None:
    tasks = []
    for n in range(300):
        path = tmp_path / f"{n}.bin"
        path.write_bytes(bytes([n % 256]) * (1 << 20))
        tasks.append({"path": str(path), "trace": str(tmp_path / "trace")})
    local = open_session(tmp_path / "local.db", workers=2)
    session = open_session(executor=client.get_executor(), workers=None)
    for each in (local, session):
        each.register(Hashes, {"act": hash_file})
    expected = local.run("hashes", tasks=tasks).result()
    os.unlink(tmp_path / "trace")
    job = session.submit("hashes", tasks=tasks)
    trace = tmp_path / "trace"
    wait_until(lambda: trace.exists() and len(trace.read_text().splitlines()) > 50)
    victim = int(trace.read_text().split()[0])
    os.kill(victim, signal.SIGKILL)
    assert job.status == "processing"
    assert job.wait(timeout=60).result() == expected
    assert rows(session, "SELECT status, count(*) FROM tasks GROUP BY 1") == [("completed", 300)]
    assert rows(session, "SELECT count(*) FROM attempts WHERE outcome = 'failed'") == [(0,)]
    pids = {pid for (pid,) in rows(session, "SELECT DISTINCT pid FROM attempts")}
    assert victim in pids
    assert len(pids) >= 2


@pytest.mark.slow
def test_S30_a_task_that_kills_every_worker_that_takes_it_fails_alone_and_its_neighbours_complete(
    open_session: OpenSession, client: Any
) -> None:
    session = open_session(executor=client.get_executor(), workers=None, max_retries=0)
    job = session.run("acts", tasks=[*[{"value": n} for n in range(20)], {"do": "signal", "value": "SIGKILL"}])
    with pytest.raises(JobFailed, match="WorkerDied: the pool lost it: KilledWorker"):
        job.result()
    assert rows(session, "SELECT task_id FROM tasks WHERE status <> 'completed'") == [("s1-t20",)]


def test_S38_cancel_ends_the_job_and_the_cluster_goes_on(
    open_session: OpenSession, client: Any, tmp_path: Path
) -> None:
    session = open_session(executor=client.get_executor(), workers=None)
    pids = tmp_path / "pids"
    job = session.submit("acts", tasks=[{"do": "pid then hang", "value": str(pids)}, *[{}] * 10])
    wait_until(pids.exists)
    assert job.cancel().status == "cancelled"
    os.kill(int(pids.read_text()), signal.SIGKILL)
    assert session.run("acts", tasks=[{}, {}]).status == "completed"


def test_the_same_tasks_in_another_session_run_again_though_dask_knows_equal_calls(
    open_session: OpenSession, client: Any, tmp_path: Path
) -> None:
    pool, counted = client.get_executor(), tmp_path / "trace"
    for name in ("one.db", "two.db"):
        session = open_session(tmp_path / name, executor=pool, workers=None)
        assert session.run("acts", tasks=[{"trace": str(counted)}]).status == "completed"
    assert len(counted.read_text().splitlines()) == 2


def test_a_cluster_that_is_gone_fails_the_job_and_says_so(open_session: OpenSession, client: Any) -> None:
    session = open_session(executor=client.get_executor(), workers=None)
    assert session.run("acts", tasks=[{}]).status == "completed"
    job = session.submit("acts", tasks=[{"do": "hang"}] * 2)
    wait_until(lambda: job.status == "processing")
    client.cluster.close()
    client.close()
    assert job.wait(timeout=30).status == "failed"
    assert "The Dask executor given as executor= takes no more work" in (job.error or "")
    with pytest.raises(ParameterError, match="has no workers: wait until it has, or give their number"):
        open_session(executor=client.get_executor(), workers=None)
