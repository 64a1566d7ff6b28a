"""The trial of parameters and of the job id that is made of them."""

from __future__ import annotations

import copy
import hashlib
import json
from typing import Any

from geoflow.checks.outside import watching
from geoflow.checks.trying import Stop, Trial, named, short, shown
from geoflow.text import shorten

_VALIDATE = "validate_job_parameters"
ADDED = {"dataset_id": None, "resource_id": None, "version_id": None, "system": False, "use_service_bus": False}


def parameters_of(trial: Trial) -> dict[str, Any]:
    given = trial.asked["given"]
    accepted, refused = None, None
    with watching() as touched:
        try:
            accepted = trial.call("method", _VALIDATE, copy.deepcopy(given))
        except Exception as exc:
            refused = exc
    for one in touched:
        trial.tell_touched("GF310" if one.reads else "GF311", _VALIDATE, one)
    if isinstance(refused, ValueError):
        trial.tell("GF901", f"{_VALIDATE} refuses {shorten(str(given), 80)}: {short(refused)}")
        raise Stop
    if refused is not None:
        trial.tell("GF312", f"For {shorten(str(given), 80)} it raises {named(refused)}.", refused)
        raise Stop
    if not isinstance(accepted, dict):
        trial.tell("GF312", f"It returns {shown(accepted)}.")
        raise Stop
    trial.raw = accepted
    return trial.as_json(accepted, "parameters")  # type: ignore[no-any-return]


def identity_of(trial: Trial, params: dict[str, Any]) -> str:
    try:
        job_id = _id_of(trial, params)
    except Exception as exc:
        trial.tell("GF301", f"It raises {named(exc)}.", exc)
        raise Stop from None
    if not isinstance(job_id, str) or len(job_id) != 64 or set(job_id) - set("0123456789abcdef"):
        trial.tell("GF301", f"It returns {shorten(shown(job_id), 100)}.")
        raise Stop
    trial.let_clocks_go_on("generate_job_id")
    if _tried(trial, params) not in (job_id, None):
        trial.tell("GF302", "Asked twice for the same parameters, it gives two ids.")
        return job_id
    if not {("GF307", _VALIDATE), ("GF309", _VALIDATE)} & trial.told and _tried(trial, trial.raw) not in (job_id, None):
        trial.tell("GF302", "It gives one id for the parameters, and another when they have been through JSON.")
        return job_id
    orders = {_validated(trial, params), _validated(trial, dict(reversed(params.items())))} - {None}
    if len(orders) == 2:
        trial.tell("GF302", "It gives another id when the same parameters are given in another order.")
        return job_id
    known = set(trial.asked["known"]) | set(trial.asked["given"])  # what validate makes of these may be left out
    ignored = [key for key in params if _tried(trial, {**params, key: _other(params[key])}) == job_id]
    undeclared = set(ignored) & known - set(getattr(trial.job, "non_identity_parameters", ()))
    if undeclared:
        trial.tell("GF304", f"The id is the same with other values of {', '.join(sorted(undeclared))}.")
    counted = {key: value for key, value in params.items() if key not in ignored}
    if any(hashlib.sha256(text.encode()).hexdigest() == job_id for text in _spelt(counted)):
        trial.tell("GF303", "The id is the SHA-256 of the parameters alone.")
    _added(trial, params, job_id)
    return job_id


def _validated(trial: Trial, params: dict[str, Any]) -> str | None:
    """The id of what validate makes of *params*."""
    try:
        return _id_of(trial, trial.call("method", _VALIDATE, copy.deepcopy(params)))
    except Exception:  # what it made once it may refuse
        return None


def _tried(trial: Trial, params: dict[str, Any]) -> str | None:
    try:
        return _id_of(trial, params)
    except Exception:  # of parameters that validate has not seen
        return None


def _id_of(trial: Trial, params: dict[str, Any]) -> str:
    return trial.call("method", "generate_job_id", copy.deepcopy(params))  # type: ignore[no-any-return]


def _added(trial: Trial, params: dict[str, Any], job_id: str) -> None:
    try:
        accepted = trial.call("method", _VALIDATE, ADDED | copy.deepcopy(trial.asked["given"]))
    except Exception as exc:
        trial.tell("GF306", f"With production's keys it raises {named(exc)}.", exc)
        return
    if isinstance(accepted, dict) and _tried(trial, accepted) not in (job_id, None):
        trial.at = ["method", _VALIDATE]
        kept = ", ".join(key for key in ADDED if key in accepted and key not in params)
        trial.tell("GF305", f"validate lets them pass ({kept or 'as other values'}), and the id is another one.")


def _other(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}x"
        case list():
            return [*value, "x"]
        case dict():
            return {**value, "x": "x"}
    return "x"


def _spelt(params: dict[str, Any]) -> list[str]:
    """The parameters alone, in the spellings that ids are commonly made of."""
    separators = ((", ", ": "), (",", ":"))
    ways = [(sort, pair, ascii) for sort in (True, False) for pair in separators for ascii in (True, False)]
    texts = [json.dumps(params, sort_keys=sort, separators=pair, ensure_ascii=ascii) for sort, pair, ascii in ways]
    return [*texts, str(params), str(sorted(params.items()))]
