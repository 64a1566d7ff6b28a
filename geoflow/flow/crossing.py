"""How values cross from stage to stage: as plain JSON, from which models and dataclasses are made again."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import pydantic
from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

from geoflow.errors import ContractViolationError, DefinitionError
from geoflow.flow.annotations import show
from geoflow.text import looks_secret, mask, shorten
from geoflow.values import from_json, to_json

SHOWN = 10
# Models are written to JSON by the names of their fields, so they are read by these too, whatever aliases they have.
BY_NAME: dict[str, Any] = (
    {"by_alias": True, "by_name": True} if tuple(map(int, pydantic.VERSION.split(".")[:2])) >= (2, 11) else {}
)


class FromJson:
    """Makes what an annotation says of plain JSON. It travels as its annotation alone."""

    def __init__(self, annotation: Any) -> None:
        self.annotation = annotation

    def __getstate__(self) -> dict[str, Any]:
        return {"annotation": self.annotation}

    @cached_property
    def _adapter(self) -> TypeAdapter[Any] | None:
        if self.annotation is Any or self.annotation is object:
            return None
        try:
            return TypeAdapter(self.annotation)
        except PydanticUserError as exc:
            if exc.code == "typed-dict-version":  # pydantic reads typing's own TypedDict from Python 3.12 on only
                return None
            raise

    def check(self, who: str) -> None:
        """Refuse an annotation that nothing can be made of; *who* begins the message."""
        try:
            _ = self._adapter
        except PydanticUndefinedAnnotation as exc:
            raise DefinitionError(f"{who}: {show(self.annotation)}, which needs {exc.name!r}: define that.") from None
        except PydanticUserError:
            raise DefinitionError(
                f"{who}: {show(self.annotation)}, which cannot be made from JSON, and that is all that passes between "
                "stages. Take a path, plain values, a pydantic model or a dataclass, and make it from that."
            ) from None

    def __call__(self, value: Any, who: str, whence: str) -> Any:
        """*value* as the annotation says.

        Raises ``ContractViolationError`` that names each field which does not fit; *who* takes it, *whence* it came.
        """
        if self._adapter is None:
            return value
        try:
            return self._made(value)
        except ValidationError as exc:
            raise ContractViolationError(
                f"{who}: {show(self.annotation)}. It cannot be made from {whence}:\n{problems_of(exc)}"
            ) from None

    def _made(self, value: Any) -> Any:
        assert self._adapter is not None
        text = to_json(value)
        try:
            return self._adapter.validate_json(text, **BY_NAME)
        except ValidationError as exc:
            problems = exc.errors(include_url=False, include_context=False)
            nulls = [p["loc"] for p in problems if p["type"] == "float_type" and p["input"] is None]
            copy = [from_json(text)]
            if len(nulls) < len(problems) or not all(_set_nan(copy, (0, *place)) for place in nulls):
                raise
        # NaN and the infinities became null on their way; where a number has to be, it can have been nothing else.
        return self._adapter.validate_json(json.dumps(copy[0]), **BY_NAME)


def _set_nan(value: Any, place: Sequence[int | str]) -> bool:
    """Put NaN where *place* leads in nested lists and dicts; False where it leads nowhere."""
    for step in place[:-1]:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(value, list | dict) and (place[-1] in value if isinstance(value, dict) else True):
        value[place[-1]] = math.nan  # type: ignore[index]
        return True
    return False


def problems_of(exc: ValidationError) -> str:
    """The first ten problems, one a line, with the field and what was given in it."""
    lines = []
    for problem in exc.errors(include_url=False, include_context=False)[:SHOWN]:
        place = ".".join(map(str, problem["loc"]))
        line = f"  - {place}: {problem['msg']}" if place else f"  - {problem['msg']}"
        if problem["type"] != "missing" and not any(looks_secret(str(part)) for part in problem["loc"]):
            line += f" (got {shorten(repr(mask(problem['input'])), 60)})"
        lines.append(line)
    if exc.error_count() > SHOWN:
        lines.append(f"  - and {exc.error_count() - SHOWN:,} more")
    return "\n".join(lines)


def plain(value: Any, where: str = "result") -> Any:
    """*value* as JSON has it; `UnstorableValue` names what in it has no JSON form, as a part of *where*."""
    return from_json(to_json(value, where=where))
