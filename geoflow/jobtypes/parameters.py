"""Parameters of a job, checked before anything is stored, and the id that they give it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from pydantic import ValidationError

from geoflow.errors import ContractViolationError, ParameterError, UnstorableValue
from geoflow.jobtypes.contract import Registered
from geoflow.jobtypes.inputs import saved_in
from geoflow.support.identity import made_by
from geoflow.support.jsonable import from_json, stored
from geoflow.support.masking import DEFAULT_SECRETS, looks_secret, mask, safe
from geoflow.support.text import shorten


def by_name(params: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What was given in one piece, a dict or an object of a job type's parameters, and by name, which counts more."""
    if not isinstance(params, Mapping | None):
        from geoflow.jobtypes.typed.crossing import as_dict

        params = as_dict(params)
    return {**(params or {}), **parameters}


def validated(registered: Registered, given: dict[str, Any], secrets: Sequence[str] = DEFAULT_SECRETS) -> str:
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
        why = safe(str(exc), secrets)
        # What a notebook would show, and save, as its cause has the secrets in it.
        raise ParameterError(f"{name} refuses these parameters: {why}") from (exc if why == str(exc) else None)
    if not isinstance(accepted, dict):
        raise ContractViolationError(
            f"{name}.validate_job_parameters must return a dict; it returned {type(accepted).__name__}."
        )
    try:
        text = stored(accepted, "parameters")
    except UnstorableValue as exc:
        raise ParameterError(f"{name}: {safe(str(exc), secrets)}") from None
    if any(made_by(PurePath(path).parent.name) is not None for path in saved_in(text)):
        raise ParameterError(
            f"{name}: a parameter is the reference of what gf.save was given outside of a task, which is gone with "
            "this process: write it to a file, and give the path."
        )
    return text


def _what_there_is(error: Any, registered: Registered) -> str:
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


def job_id_of(registered: Registered, parameters: str) -> str:
    job_id = registered.job_class.generate_job_id(from_json(parameters))  # type: ignore[attr-defined]
    if not isinstance(job_id, str) or len(job_id) != 64 or set(job_id) - set("0123456789abcdef"):
        raise ContractViolationError(
            f"{registered.name}.generate_job_id must return 64 lower-case hex digits, such as a SHA-256; it returned "
            f"{shorten(repr(job_id), 80)}."
        )
    return str(job_id)
