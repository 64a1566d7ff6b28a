"""How parameters are written: values in words ``name=value``, variables of a notebook, files and cells."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from geoflow.errors import GeoflowError
from geoflow.support.text import shorten

ASKED = "_GEOFLOW_COMPLETE"  # the variable of the environment in which a shell asks what may follow


class UsageError(GeoflowError, ValueError):
    """What was typed is not a command."""


def parameters(words: Sequence[str], variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters in *words* of the form ``name=value``; ``UsageError`` names all those that are not."""
    pairs = [word.partition("=") for word in words]
    wrong = [repr("".join(pair)) for pair in pairs if not (pair[0] and pair[1])]
    if wrong:
        raise UsageError(f"A parameter is written name=value, such as n=3, and not {', '.join(wrong)}.")
    return _each_once(((name, _value(text, variables)) for name, _, text in pairs), "What was typed")


def _each_once(pairs: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            twice = f"as {_brief(values[name])} and as {_brief(value)}"
            raise UsageError(f"{where} has {name} twice, {twice}: give it once.")
        values[name] = value
    return values


def _brief(value: Any) -> str:
    return shorten(repr(value), 40)


def _value(text: str, variables: Mapping[str, Any] | None) -> Any:
    if is_variable(text, variables):
        return variable(text, variables or {})
    with contextlib.suppress(ValueError):
        # NaN and Infinity are no JSON; the commit 980e663509 is no number that anything could hold.
        return json.loads(text, parse_constant=str, parse_float=_number_or_text, parse_int=_number_or_text)
    if text.startswith(("[", "(", "{")) or text in ("True", "False", "None"):
        with contextlib.suppress(ValueError, SyntaxError):
            return ast.literal_eval(text)
    return text


def _number_or_text(text: str) -> int | float | str:
    """The number that *text* says, or *text* where that would be another: out of range, or nothing left of it."""
    if text.lstrip("-").isdecimal():
        return number if len(text) < 25 and -(2**63) <= (number := int(text)) < 2**64 else text
    value = float(text)
    vanished = not value and re.search("[1-9]", re.split("[eE]", text)[0])
    return text if vanished or not math.isfinite(value) else value


def is_variable(word: str | None, variables: Mapping[str, Any] | None) -> bool:
    """Whether *word* is ``$name``, where there are variables."""
    return variables is not None and word is not None and word.startswith("$") and word[1:].isidentifier()


def variable(word: str, variables: Mapping[str, Any]) -> Any:
    """What the variable ``$name`` holds."""
    if word[1:] not in variables:
        raise UsageError(f"There is no variable {word[1:]} here. To say {word} as it is, quote it.")
    return variables[word[1:]]


def written(text: str, where: str) -> dict[str, Any]:
    """The parameters in *text*, which is JSON, or YAML where PyYAML is installed; *where* says it in an error."""
    try:
        values = json.loads(text, object_pairs_hook=lambda pairs: _each_once(pairs, where))
    except UsageError:
        raise
    except ValueError as exc:
        try:
            yaml = importlib.import_module("yaml")
        except ImportError:
            raise UsageError(f"{where} is not JSON: {exc}. For YAML, install PyYAML.") from None
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as no_yaml:
            raise UsageError(f"{where} is neither JSON nor YAML: {_in_short(no_yaml)}.") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise UsageError(f"{where} must say parameters by name, such as n: 3, and not {shorten(repr(values), 60)}.")
    return values


def _in_short(no_yaml: Any) -> str:
    mark = getattr(no_yaml, "problem_mark", None)
    return shorten(f"line {mark.line + 1}: {no_yaml.problem}" if mark else str(no_yaml), 200)
