"""What a job type's parameters look like to a form: their schema, as fields with a kind, bounds and a default. Pure."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from pydantic import BaseModel

LEFT_OUT: Final = object()


@dataclass(frozen=True, slots=True)
class Field:
    """One parameter. *kind* is that of its control: integer, number, boolean, choice, text, or json for all else.

    *limits* says in words what *help* need not: bounds, and whether it may be left out. *low* and *high* are allowed
    themselves if they are whole numbers'. *text_too*: text that is not JSON stands for itself.
    """

    name: str
    kind: str
    title: str
    help: str = ""
    limits: str = ""
    required: bool = False
    nullable: bool = False
    default: Any = LEFT_OUT
    low: float = -math.inf
    high: float = math.inf
    step: float | None = None
    choices: tuple[Any, ...] = ()
    text_too: bool = False
    example: str = ""

    @property
    def optional(self) -> bool:
        """Whether nothing may be said of it at all, or null."""
        return self.nullable or (not self.required and self.default is LEFT_OUT)

    @property
    def absent(self) -> Any:
        """What stands for nothing: null where leaving it out would mean something else."""
        meant = self.default is None or self.default is LEFT_OUT
        return None if self.nullable and (self.required or not meant) else LEFT_OUT

    def place(self, value: Any) -> int:
        """Where *value* is among the choices, or -1. True is not 1 there, as it is not in JSON."""
        alike = (at for at, choice in enumerate(self.choices) if choice == value and type(choice) is type(value))
        return next(alike, -1)


def fits(field: Field, value: Any) -> bool:
    """Whether the field's own control can show *value* as it is."""
    if value is LEFT_OUT or (value is None and field.optional):
        return True
    if field.kind in ("integer", "number"):
        is_of_kind = isinstance(value, int) or field.kind == "number"
        return is_of_kind and _number(value, math.nan) == value and field.low <= value <= field.high
    if field.kind == "text":
        return isinstance(value, str) and bool(value or not field.optional)
    if field.kind == "choice":
        return field.place(value) >= 0
    return field.kind == "json" or isinstance(value, bool)


# From a job type to its schema


def schema_of(job_class: type) -> dict[str, Any] | None:
    """The JSON schema of a job class's parameters, or None when it does not tell.

    It tells by ``parameters_schema`` (a JSON schema, a pydantic model, a function that returns either, or production's
    own kind: ``{"n": {"type": "int", "min": 1, "max": 9, "default": 3}}``), or else by the one pydantic model that its
    ``validate_job_parameters`` names.
    """
    schema: Any = getattr(job_class, "parameters_schema", None)
    try:
        if callable(schema) and not isinstance(schema, type):
            schema = schema()
        if schema is None:
            schema = _model_of(job_class)
        if isinstance(schema, type) and issubclass(schema, BaseModel):
            return schema.model_json_schema()
    except Exception:  # whatever the user's code, or pydantic for types without a schema, raises
        return None
    if not isinstance(schema, Mapping) or not schema:
        return None
    if isinstance(schema.get("properties"), Mapping):
        return dict(schema)
    if all(isinstance(about, Mapping) and isinstance(about.get("type"), str) for about in schema.values()):
        return _from_production(schema)
    return None


def _model_of(job_class: type) -> type[BaseModel] | None:
    function = inspect.unwrap(job_class.validate_job_parameters)  # type: ignore[attr-defined]
    named = inspect.getclosurevars(function)
    known = (*named.nonlocals.values(), *named.globals.values())
    models = {value for value in known if isinstance(value, type) and issubclass(value, BaseModel)} - {BaseModel}
    return models.pop() if len(models) == 1 else None


_TYPES = {"int": "integer", "float": "number", "bool": "boolean", "str": "string", "list": "array", "dict": "object"}
_KEYS = {"min": "minimum", "max": "maximum", "allowed": "enum"}


def _from_production(schema: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for name, about in schema.items():
        described = {_KEYS.get(key, key): value for key, value in about.items() if key != "required"}
        described["type"] = _TYPES.get(about["type"], about["type"])
        if described.get("default", LEFT_OUT) is None:
            described = {"anyOf": [described, {"type": "null"}], "default": None}
        properties[name] = described
    return {"properties": properties, "required": [name for name, about in schema.items() if about.get("required")]}


# From a schema to fields


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """The fields of a JSON schema, in its order."""
    required = set(schema.get("required") or ())
    return [_field(str(name), about, schema, name in required) for name, about in schema["properties"].items()]


def _field(name: str, described: Any, schema: Mapping[str, Any], required: bool) -> Field:
    about, nullable = _resolved(described, schema)
    title, help, of_type = str(about.get("title") or name), str(about.get("description") or ""), about.get("type")
    if title.lower() == name.replace("_", " ").strip().lower():
        title = name  # pydantic made it, not a person; and the name is what one types elsewhere
    field = Field(name, "json", title, help, "", required, nullable, about.get("default", LEFT_OUT))
    if "const" in about or isinstance(about.get("enum"), list):
        field = replace(field, kind="choice", choices=tuple([about["const"]] if "const" in about else about["enum"]))
    elif of_type in ("integer", "number"):
        apart = 1 if of_type == "integer" else 0  # of a whole number from one that is not allowed itself
        low = max(_number(about.get("minimum"), -math.inf), _number(about.get("exclusiveMinimum"), -math.inf) + apart)
        high = min(_number(about.get("maximum"), math.inf), _number(about.get("exclusiveMaximum"), math.inf) - apart)
        step = _number(about.get("multipleOf"), 0)
        field = replace(field, low=low, high=high, step=step if step > 0 else None)
        # One that may be left out is typed as text: no number stands for none.
        field = replace(field, text_too=True) if field.optional else replace(field, kind=of_type)
    elif of_type == "boolean":
        # A box that may be left alone has three states.
        unsure = field.optional or (required and field.default is LEFT_OUT)
        field = replace(field, kind="choice" if unsure else "boolean", choices=(True, False))
    elif of_type == "string":
        field = replace(field, kind="text")
    else:
        texts = any(isinstance(part, Mapping) and part.get("type") == "string" for part in about.get("anyOf") or ())
        example = {"array": "[…]", "object": "{…}"}.get(str(of_type), "")
        field = replace(field, text_too=texts or not (of_type or about.get("anyOf")), example=example)
    return replace(field, limits=", ".join(_limits(about, field)))


def _resolved(described: Any, schema: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """What is said of one parameter where it is said, and whether it may be null."""
    about, nullable = dict(described) if isinstance(described, Mapping) else {}, False
    for _ in range(20):  # a reference may lead to itself
        several = next((key for key in ("allOf", "anyOf", "oneOf") if isinstance(about.get(key), list)), None)
        inner: Any = None
        if "$ref" in about:
            inner = _looked_up(str(about.pop("$ref")), schema)
        elif several is not None:
            parts = [part for part in about[several] if part != {"type": "null"}]
            if len(parts) != 1:
                break
            nullable = nullable or len(about.pop(several)) > 1
            inner = parts[0]
        else:
            break
        about = {**(inner if isinstance(inner, Mapping) else {}), **about}
    if isinstance(about.get("type"), list):
        types = [name for name in about["type"] if name != "null"]
        nullable = nullable or len(types) < len(about["type"])
        about["type"] = types[0] if len(types) == 1 else None
    return about, nullable


def _looked_up(reference: str, schema: Mapping[str, Any]) -> Any:
    value: Any = schema
    for part in reference.removeprefix("#/").split("/"):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _number(value: Any, otherwise: float) -> float:
    """*value*, if it is a number that a browser does not round."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    return value if is_one else otherwise


_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def _limits(about: Mapping[str, Any], field: Field) -> Iterator[str]:
    bounds = {word: _number(about.get(key), math.nan) for key, word in _BOUNDS.items()}
    yield from (f"{word} {bound:,}" for word, bound in bounds.items() if not math.isnan(bound))
    if field.kind == "json" and field.example:
        yield f"JSON, as in {field.example}"
    if field.kind == "text" and isinstance(about.get("format"), str):
        yield about["format"]
    if isinstance(about.get("maxLength"), int):
        yield f"at most {about['maxLength']:,} characters"
    if isinstance(about.get("pattern"), str):
        yield f"matching {about['pattern']}"
    if field.optional:
        yield "may be null" if field.required else "may be left out"
