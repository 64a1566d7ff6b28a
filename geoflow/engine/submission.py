"""What is checked before a job is stored: its parameters, its id, and what a job of that id has that is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from geoflow.core.models import Stage
from geoflow.errors import ContractViolationError, GeoflowWarning, JobIdCollision, ParameterError, UnstorableValue
from geoflow.jobtypes.contract import JobType
from geoflow.stores.base import JobRow
from geoflow.support.jsonable import from_json, stored, to_json
from geoflow.support.text import DEFAULT_SECRETS, looks_secret, mask, safe, shorten

if TYPE_CHECKING:
    from geoflow.views.model import JobView


def by_name(params: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What was given in one piece, a dict or an object of a job type's parameters, and by name, which counts more."""
    if not isinstance(params, Mapping | None):
        from geoflow.jobtypes.typed.crossing import as_dict

        params = as_dict(params)
    return {**(params or {}), **parameters}


def validated(registered: JobType, given: dict[str, Any], secrets: Sequence[str] = DEFAULT_SECRETS) -> str:
    """The parameters as JSON text, after the job type has checked them. An error shows none of its *secrets*."""
    name = registered.name
    try:
        accepted = registered.job_class.validate_job_parameters(dict(given))  # type: ignore[attr-defined]
    except ValidationError as exc:
        problems = [
            f"  - {safe('.'.join(map(str, error['loc'])) or 'parameters', secrets)}: {safe(error['msg'], secrets)}"
            + _what_there_is(error, registered)
            + _what_was_given(error, secrets)
            for error in exc.errors(include_url=False)
        ]
        raise ParameterError(f"{name} refuses these parameters:\n" + "\n".join(problems)) from None
    except ValueError as exc:
        told = safe(str(exc), secrets)
        # What a notebook would show, and save, as its cause has the secrets in it.
        raise ParameterError(f"{name} refuses these parameters: {told}") from (exc if told == str(exc) else None)
    if not isinstance(accepted, dict):
        raise ContractViolationError(
            f"{name}.validate_job_parameters must return a dict; it returned {type(accepted).__name__}."
        )
    try:
        return stored(accepted, "parameters")
    except UnstorableValue as exc:
        raise ParameterError(f"{name}: {safe(str(exc), secrets)}") from None


def _what_there_is(error: Any, registered: JobType) -> str:
    """The parameters that there are, for a name that is none of them; nothing where the job type does not tell."""
    if error["type"] != "extra_forbidden" or len(error["loc"]) != 1:
        return ""
    from geoflow.jobtypes.schema import schema_of

    known = (schema_of(registered.job_class) or {}).get("properties")
    return f"; there are {', '.join(known)}" if known else ""


def _what_was_given(error: Any, secrets: Sequence[str]) -> str:
    if error["type"] == "missing" or any(looks_secret(str(part), tuple(secrets)) for part in error["loc"]):
        return ""
    return f" (got {shorten(repr(mask(error['input'], secrets)), 60)})"


def job_id_of(registered: JobType, parameters: str) -> str:
    job_id = registered.job_class.generate_job_id(from_json(parameters))  # type: ignore[attr-defined]
    if not isinstance(job_id, str) or len(job_id) != 64 or set(job_id) - set("0123456789abcdef"):
        raise ContractViolationError(
            f"{registered.name}.generate_job_id must return 64 lower-case hex digits, such as a SHA-256; it returned "
            f"{shorten(repr(job_id), 80)}."
        )
    return str(job_id)


def check_same_job(row: JobRow, registered: JobType, parameters: str, secrets: tuple[str, ...]) -> None:
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
    row: JobRow, registered: JobType, given: Mapping[str, Any], parameters: str, secrets: tuple[str, ...]
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
    return f"{before} {state}: nothing was run. {resume}{spelt.format('rerun')} does all of it again."


def stored_type(row: JobRow) -> JobType:
    """The job type as the store knows it: enough to end a job whose code is not here."""
    return JobType(row.job_type, object, tuple(Stage(**stage) for stage in from_json(row.stages)), {})
