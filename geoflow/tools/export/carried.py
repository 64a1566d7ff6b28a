"""What exported modules carry with them: values to JSON and back, keys and ids. It imports nothing of geoflow.

It is written into each of them as it is here, and does what its like in `jobtypes.typed` and `jsonable` does. Names
that others like to use (`time`, `datetime`) are left to them.
"""

import collections
import contextlib
import dataclasses
import datetime as _datetime
import functools
import hashlib
import json
import math
import operator
import re
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, get_type_hints
from uuid import UUID

from pydantic import AnyUrl, BaseModel, TypeAdapter, ValidationError

# What production's submit adds to the parameters by itself.
_ADDED = {"dataset_id", "resource_id", "version_id", "system", "use_service_bus"}


def _plain(value: Any) -> Any:
    """*value* as JSON has it: models become objects, sets are sorted, NaN and the infinities null."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_text(_plain(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        items = [_plain(item) for item in value]
        try:
            return sorted(items)
        except TypeError:
            return sorted(items, key=json.dumps)
    if isinstance(value, (_datetime.date, _datetime.time)):
        return None if value.isoformat() == "NaT" else value.isoformat()
    if isinstance(value, _datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (PurePath, UUID, AnyUrl)):
        return str(value)
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    geo = None if hasattr(type(value), "iloc") else getattr(value, "__geo_interface__", None)
    if isinstance(geo, dict) and ("crs" in geo or getattr(value, "crs", None) is None):  # else GeoJSON would lose it
        return _plain(geo)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "dtype"):
        return _scalar(value)
    if type(value).__name__ == "NAType":
        return None
    raise TypeError(f"{type(value).__name__} has no JSON form: write it to a file and return the path.")


def _scalar(value: Any) -> Any:
    """The same of a scalar of numpy's, or an array of no dimensions."""
    kind = getattr(value.dtype, "kind", None)
    if hasattr(type(value), "mask") and value.mask:
        return None
    if kind in ("M", "m"):
        only = value.__array__()[()]
        if kind == "m":
            return _plain(float(only / type(only)(1, "s")))
        return None if str(only) == "NaT" else str(only)
    return _plain(float(value) if kind == "f" else value.item())


def _text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _by_name() -> dict[str, Any]:
    """Models are read by the names of their fields, whatever aliases they have; older pydantic cannot say so."""
    known = TypeAdapter.validate_json.__kwdefaults__ or {}
    return dict.fromkeys({"by_alias", "by_name"} & known.keys(), True)


def _made(kind: Any, value: Any) -> Any:
    """The *kind* of thing that a function takes, made of JSON. A null for a number was NaN on its way."""
    adapter, text = TypeAdapter(kind), json.dumps(value)
    try:
        return adapter.validate_json(text, **_by_name())
    except ValidationError as exc:
        whole: Any = [json.loads(text)]
        for problem in exc.errors(include_url=False, include_context=False):
            if problem["type"] == "float_type" and problem["input"] is None:
                *path, last = 0, *problem["loc"]
                with contextlib.suppress(LookupError, TypeError):  # the arm of a union is no place in the value
                    functools.reduce(operator.getitem, path, whole)[last] = math.nan
        return adapter.validate_json(json.dumps(whole[0]), **_by_name())


def _hint(function: Any, name: str) -> Any:
    """What is annotated for what *function* takes as *name*, or for what it returns."""
    return get_type_hints(function, include_extras=True).get(name, Any)


def _called(function: Any, **given: Any) -> Any:
    """Call *function* with what its annotations say, made of the JSON *given*."""
    hints = {name: _hint(function, name) for name in given}
    made = {name: value if hints[name] is Any else _made(hints[name], value) for name, value in given.items()}
    return function(**made)


def _handled(returned: Any) -> dict[str, Any]:
    """What a function returned, as a handler says it."""
    found = _plain(returned)
    said = found.get("success") if isinstance(found, dict) else None
    is_handled = said is False or (said is True and "result" in found)
    return found if is_handled else {"success": True, "result": found}


def _validated(kind: Any, params: dict[str, Any], *names: str) -> Any:
    """The parameters with their defaults, as JSON has them; ValueError if refused."""
    if unknown := sorted(params.keys() - {*names} - _ADDED):
        raise ValueError(f"There is no parameter {', '.join(unknown)}; there are {', '.join(names)}.")
    known = {name: value for name, value in params.items() if name in names}
    return _plain(TypeAdapter(kind).validate_python(known, **_by_name()))


def _job_id(job_type: str, params: dict[str, Any], *outside: str) -> str:
    """SHA-256 over the job type and the parameters, less those named in *outside*."""
    inside = {name: value for name, value in params.items() if name not in outside}
    text = json.dumps(inside, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{job_type}\n{text}".encode()).hexdigest()


def _task_id(job_id: str, stage: str, key: str | None = None) -> str:
    """A name of at most 100 characters, the same whenever it is asked."""
    parts = [job_id[:8], stage] if key is None else [job_id[:8], stage, re.sub(r"[^\w.-]+", "-", key)]
    name = "-".join(parts)
    if len(name) <= 100 and key != "" and parts[-1] in (stage, key):
        return name
    told = f"{stage}|{key}".encode(errors="backslashreplace")
    return f"{name[:87].rstrip('-')}-{hashlib.sha256(told).hexdigest()[:12]}"


def _keyed(items: list[Any], keys: Any) -> list[tuple[str, Any]]:
    """Each item with the text that tells it from the others."""
    texts = [_text(key) for key in keys]
    if doubles := [text for text, times in collections.Counter(texts).items() if times > 1]:
        raise TypeError(f"Several items have the same key {doubles[0]!r}.")
    return list(zip(texts, items, strict=True))


def _results(handled: list[dict[str, Any]] | None) -> list[Any]:
    """What the functions of a stage returned."""
    return [one.get("result") for one in handled or []]


def _first(results: list[Any]) -> Any:
    return results[0] if results else None


def _items(found: list[Any]) -> list[Any]:
    """All that is in the lists that were *found*."""
    for one in found:
        if not isinstance(one, list):
            raise TypeError(f"A {type(one).__name__} is no list of items.")
    return [item for one in found for item in one]


def _progress(done: float, total: float | None = None, text: str = "") -> None:
    """How far a task has come: nobody looks at it here."""


def _track(iterable: Any, desc: str = "", total: float | None = None) -> Any:
    return iter(iterable)
