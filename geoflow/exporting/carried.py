"""What exported modules carry with them: values to JSON and back, keys and ids. It imports nothing of geoflow.

Those that a module needs are written into it as they are here. Each does what its like in `geoflow.flow` and
`geoflow.values` does. Lines are short and commas trail, so that formatters of any width leave them as they are; names
that others like to use (`time`, `Callable`) are left to them.
"""

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
from typing import Any
from uuid import UUID

import pydantic
from pydantic import AnyUrl, BaseModel, TypeAdapter, ValidationError


class ContractViolationError(TypeError):
    """The code and the engine disagree. Never retried."""


class BusinessLogicError(Exception):
    """The work itself went wrong. Retried."""


class TaskExecutionError(BusinessLogicError):
    """A task could not do its work. Retried."""


class ResourceNotFoundError(BusinessLogicError):
    """Something that the task needs does not exist. Not retried."""


class ServiceBusError(BusinessLogicError):
    """A message could not be sent or received. Retried."""


class DatabaseError(BusinessLogicError):
    """A database could not be reached or refused. Retried."""


def _plain(value: Any) -> Any:
    """*value* as JSON has it: models become objects, NaN and the infinities null."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, dict):
        return {_key(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return _in_order([_plain(item) for item in value])
    if isinstance(value, _datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, (PurePath, UUID, AnyUrl)):
        return str(value)
    if isinstance(value, Decimal):
        return str(value) if value.is_finite() else None
    if isinstance(value, BaseModel):
        return _plain(value.model_dump())
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _plain(getattr(value, name)) for name in names}
    return _foreign(value)


def _foreign(value: Any) -> Any:
    """The same for times, geometries and numpy's scalars."""
    if isinstance(value, (_datetime.date, _datetime.time)):
        return None if value.isoformat() == "NaT" else value.isoformat()
    if isinstance(getattr(value, "__geo_interface__", None), dict):
        return _plain(value.__geo_interface__)
    if type(value).__name__ == "NAType":
        return None
    if not hasattr(type(value), "dtype") or getattr(value, "ndim", None) != 0:
        kind = type(value).__name__
        told = f"{kind} has no JSON form: write it to a file and return the path."
        raise TypeError(told)
    if hasattr(type(value), "mask") and value.mask:
        return None
    if value.dtype.kind in "Mm":
        only = value.__array__()[()]
        if str(only) == "NaT":
            return None
        is_date = value.dtype.kind == "M"
        return str(only) if is_date else float(only / type(only)(1, "s"))
    return _plain(float(value) if value.dtype.kind == "f" else value.item())


def _in_order(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=json.dumps)


def _text(value: Any) -> str:
    """A text as it is, anything else as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _key(key: Any) -> str:
    return _text(_plain(key))


@functools.cache
def _by_name() -> dict[str, Any]:
    """Models are read by the names of their fields, whatever aliases they have."""
    is_new = tuple(map(int, pydantic.VERSION.split(".")[:2])) >= (2, 11)
    return {"by_alias": True, "by_name": True} if is_new else {}


def _made(adapter: TypeAdapter[Any], value: Any) -> Any:
    """What a function takes, made of JSON. A null for a number was NaN on its way."""
    text = json.dumps(value)
    try:
        try:
            return adapter.validate_json(text, **_by_name())
        except ValidationError as exc:
            return adapter.validate_json(_with_nan(json.loads(text), exc), **_by_name())
    except ValidationError as exc:
        raise ContractViolationError(str(exc)) from None


def _with_nan(value: Any, exc: ValidationError) -> str:
    """JSON of *value* with NaN for each such null; *exc* if more is wrong with it."""
    whole = [value]
    try:
        for problem in exc.errors(include_url=False, include_context=False):
            *path, last = 0, *problem["loc"]
            holder: Any = functools.reduce(operator.getitem, path, whole)
            if problem["type"] != "float_type" or holder[last] is not None:
                raise exc
            holder[last] = math.nan
    except (LookupError, TypeError):  # the arm of a union, and no place in the value
        raise exc from None
    return json.dumps(whole[0])


def _validated(adapter: TypeAdapter[Any], params: dict[str, Any], *names: str) -> Any:
    """The parameters with their defaults, as JSON has them; ValueError if refused."""
    added = {"dataset_id", "resource_id", "version_id", "system", "use_service_bus"}
    if unknown := sorted(params.keys() - {*names} - added):
        told = f"There is no parameter {', '.join(unknown)}"
        raise ValueError(f"{told}; there are {', '.join(names)}.")
    known = {name: value for name, value in params.items() if name in names}
    return _plain(adapter.validate_python(known, **_by_name()))


def _job_id(job_type: str, params: dict[str, Any], *outside: str) -> str:
    """SHA-256 over the job type and the parameters, less those named in *outside*."""
    inside = {name: params[name] for name in params if name not in outside}
    text = json.dumps(inside, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{job_type}\n{text}".encode()).hexdigest()


def _task_id(job_id: str, stage: str, key: str | None = None) -> str:
    """A name of at most 100 characters, the same whenever it is asked."""
    parts = [job_id[:8], stage]
    if key is not None:
        parts.append(re.sub(r"[^\w.-]+", "-", key))
    name = "-".join(parts)
    if len(name) <= 100 and key != "" and parts[-1] in (stage, key):
        return name
    told = f"{stage}|{key}".encode(errors="backslashreplace")
    return f"{name[:87].rstrip('-')}-{hashlib.sha256(told).hexdigest()[:12]}"


def _results(handled: list[dict[str, Any]] | None) -> list[Any]:
    """What the functions of the stage before returned."""
    return [one.get("result") for one in handled or []]


def _first(results: list[Any]) -> Any:
    return results[0] if results else None


def _completed(context: Any, task_type: str) -> list[Any]:
    """What the functions of the last stage returned."""
    tasks = [task for task in context.task_results if task.task_type == task_type]
    return _results([task.result_data for task in tasks if task.success])


def _items(found: list[Any]) -> list[Any]:
    """All that is in the lists that were *found*."""
    for one in found:
        if not isinstance(one, list):
            raise ContractViolationError(f"A {type(one).__name__} is no list of items.")
    return [item for one in found for item in one]


def _fields(values: list[Any], name: str) -> list[Any]:
    """The field *name* of each value."""
    for one in values:
        if not isinstance(one, dict) or name not in one:
            kind = type(one).__name__
            raise ContractViolationError(f"There is no {name!r} in a {kind}.")
    return [one[name] for one in values]


def _picked(function: Any, values: list[Any], adapter: Any = None) -> list[Any]:
    """What *function* finds in each value, or in what the adapter makes of it."""
    made = [_made(adapter, one) for one in values] if adapter else values
    return [_plain(function(one)) for one in made]


def _keyed(keys: Any, items: list[Any]) -> list[tuple[str, Any]]:
    """Each item with the text that tells it from the others."""
    found: dict[str, Any] = {}
    for key, item in zip(map(_text, keys), items, strict=True):
        if key in found:
            raise ContractViolationError(f"Two items have the same key {key!r}.")
        found[key] = item
    return list(found.items())


def _handled(returned: Any) -> dict[str, Any]:
    """What a function returned, as a handler says it."""
    returned = _plain(returned)
    said = returned.get("success") if isinstance(returned, dict) else None
    if said is False or (said is True and "result" in returned):
        handled: dict[str, Any] = returned
        return handled
    return {"success": True, "result": returned}
