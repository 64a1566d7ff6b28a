"""Real data out of installed packages, and one session with warm workers for all job types of examples/geospatial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow import datasets
from geoflow.errors import ResourceNotFoundError

EXAMPLES = Path(__file__).parents[2] / "examples" / "geospatial"
LAND = EXAMPLES / "data" / "land30s.tif"


def data(name: str) -> str:
    """The path of the data set *name*; a test that asks for one that is not installed is skipped, and says why."""
    try:
        return str(datasets.path(name))
    except ResourceNotFoundError as exc:
        pytest.skip(str(exc))


@pytest.fixture(scope="session")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gf.Session]:
    with gf.open(tmp_path_factory.mktemp("geo") / "work.db", workers=2, display="none") as session:
        yield session


Run = Callable[..., gf.JobHandle]


@pytest.fixture
def run(session: gf.Session) -> Run:
    """Run the job type of a file of examples/geospatial, which is called as the file is."""

    def run_one(name: str, /, **parameters: Any) -> gf.JobHandle:
        session.register(EXAMPLES / f"{name}.py")
        return session.run(name, **parameters)

    return run_one
