"""What is said to who gives something else than what is wanted: what was given, what is wanted, what to type."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import geoflow as gf
from geoflow.errors import DefinitionError, GeoflowWarning, ParameterError
from geoflow.jobtypes.registry import Registry
from tests.helpers import jobs
from tests.helpers.sessions import OpenSession


class Params(BaseModel):
    n: int = 1


def job_type() -> gf.JobType:
    made = gf.JobType("worded", params=Params)

    @made.stage
    def first(p: Params) -> dict[str, int]:
        return {"n": p.n}

    return made


def act(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": params}


def test_parameters_may_be_an_object_of_their_class_wherever_they_are_taken(open_session: OpenSession) -> None:
    session, made = open_session(workers=0), job_type()
    assert session.run(made, Params(n=3)).result() == {"n": 3}
    assert session.run(made, Params(n=3), n=4).result() == {"n": 4}
    assert session.submit(made, Params(n=3)).parameters == {"n": 3}
    assert session.plan(made, Params(n=3)).job_id == session.run(made, n=3).id
    assert gf.check(made, params=Params(n=3)).findings == gf.check(made, n=3).findings


@pytest.mark.parametrize(
    ("ask", "kind", "said"),
    [
        (
            lambda s: s.run("acts", 5),
            ParameterError,
            r"^5 is int, and no parameters: give them by name, as in run",
        ),
        (lambda s: s.plan("acts", ["a"]), ParameterError, r"^\['a'\] is list, and no parameters: give them by name"),
        (
            lambda s: s.run(jobs.Acts()),
            DefinitionError,
            "Acts is a job class: give the class itself, Acts,",
        ),
        (
            lambda s: s.run(act),
            DefinitionError,
            "act is a function; it runs as a stage or handler",
        ),
        (
            lambda s: s.run(5),
            DefinitionError,
            "^5 is no job type. A job type is given as a gf.JobType,",
        ),
        (lambda s: s.job(5), ParameterError, r"a text such as '4f23fe85': 5 is int. session.jobs\(\) lists the ids"),
        (lambda s: s.run("acts", tasks=[{}]).task(5), ParameterError, r"a text: 5 is int. job.tasks\(\) lists the ids"),
    ],
)
def test_what_is_no_job_type_no_parameters_and_no_id_is_told_as_that(
    ask: Callable[[gf.Session], Any], kind: type[Exception], said: str, open_session: OpenSession
) -> None:
    with pytest.raises(kind, match=said):
        ask(open_session(workers=0))


def test_a_job_in_a_list_is_one_short_line_and_printed_all_of_it(open_session: OpenSession) -> None:
    job = open_session(workers=0).run(job_type())
    assert repr([job]) == f"[<job {job.id[:8]} worded: completed>]"
    assert "first" in str(job)
    formatters = pytest.importorskip("IPython.core.formatters")
    pretty = formatters.PlainTextFormatter()
    assert pretty(job) == str(job)
    assert pretty([job]) == repr([job])


def test_S4_a_decorator_that_hides_what_its_function_takes_is_told_at_registration() -> None:
    def plainly(function: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            return function(*args)

        return wrapped

    def well(function: Any) -> Any:
        return functools.wraps(function)(plainly(function))

    with pytest.warns(UserWarning, match=r"handler of 'act' takes \*args, .* no context: put functools.wraps"):
        Registry().register(jobs.Acts, {"act": plainly(act)})
    Registry().register(jobs.Acts, {"act": well(act)})


def test_what_is_to_be_preloaded_and_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    for wrong in ("nunpy.linalg", "json.nunpy", "json.decoder.more", "", "..json", "os.nunpy"):
        with pytest.warns(GeoflowWarning, match=f"preload names {wrong!r}, which is no module"):
            gf.Session(tmp_path / "work.db", workers=1, preload=("json", wrong))


def test_what_is_to_be_preloaded_is_looked_for_and_not_imported(tmp_path: Path) -> None:
    before = set(sys.modules)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gf.Session(tmp_path / "work.db", workers=1, preload=("os.path", "xml.sax.expatreader", "wsgiref.util"))
    assert not {name for name in set(sys.modules) - before if name.startswith("wsgiref")}
