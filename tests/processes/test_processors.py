"""How many workers there are where nobody says: as many as this process may use processors."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geoflow.support.processors import usable
from tests.helpers.sessions import OpenSession


def _write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(autouse=True)
def _sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "process_cpu_count", lambda: 16, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)


@pytest.mark.parametrize(
    ("files", "processors"),
    [
        ({}, 12),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n"}, 12),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/not/seen/here\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        (
            {
                "proc/self/cgroup": "7:cpu,cpuacct:/c\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_quota_us": "400000\n",
                "sys/fs/cgroup/cpu,cpuacct/c/cpu.cfs_period_us": "100000\n",
            },
            4,
        ),
        (
            {
                "proc/self/cgroup": "7:cpu,cpuacct:/c\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/c/cpu.cfs_period_us": "100000\n",
            },
            12,
        ),
        ({"proc/self/cgroup": "nonsense"}, 12),
    ],
)
def test_affinity_and_quotas_of_control_groups_count(tmp_path: Path, files: dict[str, str], processors: int) -> None:
    assert usable(_write(tmp_path, files)) == processors


def test_a_session_has_as_many_slots(open_session: OpenSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    session = open_session(workers=None)
    assert session.runtime.executor.slots == 1
