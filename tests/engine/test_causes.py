"""What an error was raised from: in frames, in the terminal, and in the groups of a view."""

from __future__ import annotations

from typing import Any

import pytest

import geoflow as gf
from geoflow.views import rows
from tests.helpers.sessions import OpenSession


class ReadFailed(ValueError):
    """As rasterio's: what matters is in what it was raised from."""


chained = gf.JobType("chained", description="Errors that were raised from others.")


@chained.stage
def plan(p: dict) -> list[dict]:
    return [{"why": why} for why in p["whys"]]


@chained.each(plan)
def read(item: dict) -> dict:
    if not item["why"]:
        raise ReadFailed("no cause")
    try:
        try:
            raise OSError(item["why"])
        except OSError as exc:
            raise RuntimeError(f"block {len(item['why'])}") from exc
    except RuntimeError as exc:
        raise ReadFailed("Read failed. See previous exception for details.") from exc


STRIP, ZIP = "TIFFReadEncodedStrip() failed", "ZIPDecode: bad data"


@pytest.fixture
def job(open_session: OpenSession) -> gf.JobHandle:
    return chained.run(whys=[STRIP, ZIP, STRIP, ""], session=open_session(workers=0))


@pytest.mark.on_duckdb
def test_S27_the_first_cause_of_a_failed_attempt_is_in_its_row(job: gf.JobHandle) -> None:
    errors = job.errors()
    assert errors["cause"].isna().tolist() == [False, False, False, True]
    assert errors["cause"][:3].tolist() == [f"OSError: {STRIP}", f"OSError: {ZIP}", f"OSError: {STRIP}"]
    assert "cause" not in job.attempts()
    listed: list[dict[str, Any]] = rows.errors(job.runtime.store, job.id)
    assert [row["cause"] for row in listed] == [*errors["cause"][:3], None]
    assert ["key", *listed[0]] == [*errors.columns]


@pytest.mark.on_duckdb
def test_S27_failures_of_one_message_and_two_causes_are_two_groups_that_say_them(job: gf.JobHandle) -> None:
    view = job.runtime.snapshot(job.id)
    assert [(group.tasks, group.cause) for group in view.errors] == [
        (2, f"OSError: {STRIP}"),
        (1, f"OSError: {ZIP}"),
        (1, None),
    ]
    assert f"caused by OSError: {ZIP}" in str(job)
    assert f"Caused by OSError: {STRIP}" in job._repr_html_()


def test_S27_a_job_without_failures_has_the_same_columns(open_session: OpenSession) -> None:
    session = open_session(workers=0)
    none = chained.run(whys=[], session=session).errors()
    some = chained.run(whys=[STRIP], session=session).errors()
    assert none.dtypes.to_dict() == some.dtypes.to_dict()
