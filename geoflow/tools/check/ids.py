"""The trial of parameters and of the job id that is made of them."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import re
from typing import Any

from geoflow.errors import ParameterError
from geoflow.jobtypes.answers import shown
from geoflow.jobtypes.typed.crossing import ADDED
from geoflow.support.text import shorten
from geoflow.tools.check.trial_state import IDENTIFY, VALIDATE, Trial, is_mistake, named, short


def parameters_of(trial: Trial) -> dict[str, Any]:
    """What validate makes of the parameters that were given; ``Stop`` where none are, and it asks for some."""
    parameters = trial.asked["given"]
    accepted, refused = trial.watched(VALIDATE, VALIDATE, copy.deepcopy(parameters))
    if isinstance(refused, ParameterError):  # a default, or what was given, that JSON cannot carry
        raise trial.stop("GF308", f"{VALIDATE}: {short(refused)}")
    is_refused = refused is not None and not is_mistake(refused)
    if trial.are_guessed and (is_refused or (isinstance(accepted, dict) and accepted)):
        raise trial.stop("GF901", "Its parameters are not known.")
    if trial.are_guessed and not _passes_through(trial):  # so it has none
        trial.are_given, trial.are_guessed = True, False
    if isinstance(refused, ValueError):
        raise trial.stop("GF901", f"{VALIDATE} refuses {shorten(str(parameters), 80)}: {short(refused)}")
    if refused is not None:
        raise trial.stop("GF312", f"For {shorten(str(parameters), 80)} it raises {named(refused)}.", refused)
    if not isinstance(accepted, dict):
        raise trial.stop("GF312", f"It returns {shown(accepted)}.")
    return trial.as_json(accepted, "parameters")  # type: ignore[no-any-return]


def _passes_through(trial: Trial) -> bool:
    """Whether validate hands on what it knows nothing of, so that nobody can tell which parameters there are."""
    try:
        return trial.call(VALIDATE, {"of_no_job_type": None}) != {}  # type: ignore[no-any-return]
    except Exception:
        return False


def identity_of(trial: Trial, params: dict[str, Any]) -> str:
    """The job's id."""
    try:
        job_id = trial.call(IDENTIFY, copy.deepcopy(params))
    except Exception as exc:
        raise trial.stop("GF301", f"It raises {named(exc)}.", exc) from None
    if not isinstance(job_id, str) or not re.fullmatch("[0-9a-f]{64}", job_id):
        raise trial.stop("GF301", f"It returns {shown(job_id)}.")
    trial.let_clocks_go_on(IDENTIFY)
    if _id(trial, params) not in (job_id, None):
        trial.tell("GF302", "Asked twice for the same parameters, it gives two ids.")
        return job_id
    orders = {_id(trial, order, validate=True) for order in (params, dict(reversed(params.items())))} - {None}
    if len(orders) == 2:
        trial.tell("GF302", "It gives another id when the same parameters are given in another order.")
        return job_id
    # Where the id counts a value, it does so for one of another type, or cannot: both show.
    others = {key: not value if isinstance(value, bool) else [value] for key, value in params.items()}
    ignored = {key for key, other in others.items() if _id(trial, {**params, key: other}) == job_id}
    known = {*trial.asked["known"], *trial.asked["given"]}  # what validate makes of these may be left out
    if undeclared := (ignored & known).difference(getattr(trial.job, "non_identity_parameters", ())):
        trial.tell("GF304", f"The id is the same with other values of {', '.join(sorted(undeclared))}.")
    if job_id in _hashes({key: value for key, value in params.items() if key not in ignored}):
        trial.tell("GF303", "The id is the SHA-256 of the parameters alone.")
    _added(trial, params, job_id)
    return job_id


def _id(trial: Trial, params: dict[str, Any], validate: bool = False) -> str | None:
    """The id of *params*, or of what validate makes of them; None where they are refused, as they may be."""
    try:
        copied = copy.deepcopy(params)
        return trial.call(IDENTIFY, trial.call(VALIDATE, copied) if validate else copied)  # type: ignore[no-any-return]
    except Exception:
        return None


def _added(trial: Trial, params: dict[str, Any], job_id: str) -> None:
    added = {key: False if key in ("system", "use_service_bus") else None for key in sorted(ADDED)}
    try:
        accepted = trial.call(VALIDATE, added | copy.deepcopy(trial.asked["given"]))
    except Exception as exc:
        trial.tell("GF305", f"With production's keys it raises {named(exc)}.", exc)
        return
    if isinstance(accepted, dict) and _id(trial, accepted) not in (job_id, None):
        trial.at = ["method", VALIDATE]
        kept = ", ".join(key for key in added if key in accepted and key not in params)
        trial.tell("GF305", f"With production's keys ({kept or 'which change others'}) the id is another one.")


def _hashes(params: dict[str, Any]) -> set[str]:
    """The hashes of the parameters alone, in the spellings that ids are commonly made of."""
    texts = [str(params), str(sorted(params.items()))]
    for sort, separators, ascii in itertools.product((True, False), ((", ", ": "), (",", ":")), (True, False)):
        texts.append(json.dumps(params, sort_keys=sort, separators=separators, ensure_ascii=ascii))
    return {hashlib.sha256(text.encode()).hexdigest() for text in texts}
