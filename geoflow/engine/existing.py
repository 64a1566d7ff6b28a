"""A submission that finds its job in the store: whether it is the same one, what it keeps of its own, what is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from geoflow.core.models import Stage
from geoflow.core.rows import JobRow
from geoflow.errors import GeoflowWarning, JobIdCollision
from geoflow.jobtypes.contract import Registered
from geoflow.support.jsonable import from_json, to_json
from geoflow.support.masking import mask
from geoflow.support.text import count, shorten
from geoflow.views.model import JobView


def check_same_job(row: JobRow, registered: Registered, parameters: str, secrets: tuple[str, ...]) -> None:
    def identity(text: str) -> dict[str, Any]:
        return {key: value for key, value in from_json(text).items() if key not in registered.non_identity}

    def shown(text: str) -> str:
        return shorten(to_json(mask(from_json(text), secrets)), 200)

    if row.job_type != registered.name:
        raise JobIdCollision(
            f"{registered.name} with these parameters has the id {row.job_id[:8]}, which is that of a job of type "
            f"{row.job_type}. Put the job type into generate_job_id of both."
        )
    if identity(row.parameters) != identity(parameters):
        raise JobIdCollision(
            f"{registered.name}: the id {row.job_id[:8]} belongs to a job with other parameters. There "
            f"{shown(row.parameters)}, here {shown(parameters)}. Put what differs into generate_job_id, "
            "or name it in non_identity_parameters."
        )


def keeps_its_own(
    row: JobRow, registered: Registered, given: Mapping[str, Any], parameters: str, secrets: tuple[str, ...]
) -> GeoflowWarning | None:
    """What to say where the job that is there has another value of what was *given*; that is no part of its id."""
    stored, here = (mask(from_json(text), secrets) for text in (row.parameters, parameters))
    other = from_json(row.parameters), from_json(parameters)
    names = [name for name in given if name in registered.non_identity and other[0].get(name) != other[1].get(name)]
    if not names:
        return None
    both = [" and ".join(f"{name}={shorten(repr(of.get(name)), 60)}" for name in names) for of in (stored, here)]
    if both[0] == both[1]:  # secrets, or long ones
        both = [" and ".join(names), "what is given"]
    what, then = f"Job {row.job_id[:8]} ({row.job_type}) exists, and keeps its own {both[0]}:", f"takes {both[1]}."
    return GeoflowWarning(what, python=f"on_existing='rerun' {then}", typed=f"--on-existing rerun {then}")


def found_again(view: JobView, spelt: str) -> str:
    """What to say of a job that was there, and was left as it is. *spelt* is how ``on_existing`` is given."""
    before = f"Job {view.job_id[:8]} was submitted before, and"
    if view.driver is not None:
        return f"{before} is driven by {view.driver.partition(', since')[0]}."
    state = "has failed" if view.state == "failed" else f"is {view.state}"
    resume = "" if view.status == "completed" else f"{spelt.format('resume')} goes on with what has not completed, "
    if view.status == "completed" and view.failed:
        retry = "job.retry_failed()" if spelt.startswith("on_") else f"geoflow retry {view.job_id[:8]}"
        resume = f"{retry} runs what failed, "
    return f"{before} {state}: nothing was run. {resume}{spelt.format('rerun')} does all of it again."


def ran_on_others(row: JobRow, changed: int) -> GeoflowWarning:
    """What to say where the declared inputs of so many of the job's tasks are not as they were."""
    both = "{} runs what has changed, and what is behind it."
    return GeoflowWarning(
        f"Job {row.job_id[:8]} ({row.job_type}) is {row.status}, and inputs of {count(changed, 'task')} changed since:",
        python=both.format("job.update()"),
        typed=both.format(f"geoflow rerun {row.job_id[:8]} --update"),
    )


def may_have_changed(row: JobRow, names: Sequence[str]) -> GeoflowWarning:
    """What to say of tasks' parameters that are folders or addresses into which nobody looks."""
    shown = ", ".join(shorten(name, 60) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return GeoflowWarning(
        f"Job {row.job_id[:8]} ({row.job_type}): no stage declares as input what is a folder or an address: "
        f"{shown}{more}. What is there may have changed unseen, and results are reused as if it had not. Name the "
        "parameter in inputs= of its stage, or annotate it as gf.InputFile."
    )


def stored_type(row: JobRow) -> Registered:
    """The job type as the store knows it: enough to end a job whose code is not here."""
    return Registered(row.job_type, object, tuple(Stage(**stage) for stage in from_json(row.stages)), {})
