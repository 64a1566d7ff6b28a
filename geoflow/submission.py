"""What is checked before a job is stored: its parameters, its id, and whether the job of that id is the same."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from geoflow.contract import JobType
from geoflow.errors import ContractViolationError, JobIdCollision, ParameterError, UnstorableValue
from geoflow.models import Stage
from geoflow.stores.base import JobRow
from geoflow.text import looks_secret, mask, shorten
from geoflow.values import from_json, to_json


def validated(registered: JobType, given: dict[str, Any]) -> str:
    """The parameters as JSON text, after the job type has checked them."""
    name = registered.name
    try:
        accepted = registered.job_class.validate_job_parameters(dict(given))  # type: ignore[attr-defined]
    except ValidationError as exc:
        problems = [
            f"  - {'.'.join(map(str, error['loc'])) or 'parameters'}: {error['msg']}" + _what_was_given(error)
            for error in exc.errors(include_url=False)
        ]
        raise ParameterError(f"{name} refuses these parameters:\n" + "\n".join(problems)) from None
    except ValueError as exc:
        raise ParameterError(f"{name} refuses these parameters: {exc}") from exc
    if not isinstance(accepted, dict):
        raise ContractViolationError(
            f"{name}.validate_job_parameters must return a dict; it returned {type(accepted).__name__}."
        )
    try:
        return to_json(accepted, where="parameters")
    except UnstorableValue as exc:
        raise ParameterError(f"{name}: {exc}") from None


def _what_was_given(error: Any) -> str:
    if error["type"] == "missing" or any(looks_secret(str(part)) for part in error["loc"]):
        return ""
    return f" (got {shorten(repr(mask(error['input'])), 60)})"


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


def stored_type(row: JobRow) -> JobType:
    """The job type as the store knows it: enough to end a job whose code is not here."""
    return JobType(row.job_type, object, tuple(Stage(**stage) for stage in from_json(row.stages)), {})
