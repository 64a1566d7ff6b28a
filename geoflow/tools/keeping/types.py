"""What can be run: the job types that a session knows, and those that geoflow brings."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, NamedTuple

from geoflow.jobtypes.contract import Registered
from geoflow.jobtypes.loading import BUILT_IN, registered
from geoflow.jobtypes.registry import Registry
from geoflow.jobtypes.schema import LEFT_OUT, Field, fields_of, schema_of
from geoflow.render.report import Entry, Report
from geoflow.support.text import count, shorten


class KnownType(NamedTuple):
    """A job type: what it is for, its stages, and its parameters as far as it declares them, else None."""

    job_type: str
    built_in: bool
    description: str
    stages: tuple[str, ...]
    parameters: tuple[Field, ...] | None


@dataclass(repr=False)
class Types(Report):
    """The job types that can be run, by their names."""

    types: tuple[KnownType, ...]
    exit_status: int = 0  # for a shell

    @property
    def title(self) -> str:
        return f"{count(len(self.types), 'job type')} can be run."

    def parts(self) -> list[str | Entry]:
        return [self._entry(each) for each in self.types]

    def _entry(self, each: KnownType) -> Entry:
        said = [("", each.description or "It says nothing of itself.")]
        if each.parameters is not None:
            said.append(("Parameters: ", ", ".join(map(_parameter, each.parameters)) or "none"))
        said.append(("Stages: ", ", ".join(each.stages)))
        return Entry("note", "", each.job_type, tuple(said), "built in" if each.built_in else None)

    def document(self) -> list[dict[str, Any]]:
        """For programs: a row for each job type."""
        return [
            each._asdict()
            | {
                "stages": list(each.stages),
                "parameters": each.parameters and [_row(field) for field in each.parameters],
            }
            for each in self.types
        ]


def types(registry: Registry) -> Types:
    """See `Session.types`."""
    for name in BUILT_IN:
        if name not in registry:
            registered(registry, name)
    return Types(tuple(_known(registry.get(name)) for name in sorted(registry)))


def _known(job_type: Registered) -> KnownType:
    schema = schema_of(job_type.job_class)
    description = inspect.cleandoc(str(getattr(job_type.job_class, "description", "") or ""))
    is_built_in = job_type.job_class.__module__ == BUILT_IN.get(job_type.name)
    stages = tuple(f"{stage.name} ({stage.parallelism})" for stage in job_type.stages)
    parameters = None if schema is None else tuple(fields_of(schema))
    return KnownType(job_type.name, is_built_in, description, stages, parameters)


def _parameter(field: Field) -> str:
    default = "" if field.default is LEFT_OUT else f" = {shorten(repr(field.default), 30)}"
    return f"{field.name}{default}" if field.required or default else f"{field.name} (may be left out)"


def _row(field: Field) -> dict[str, Any]:
    default = {} if field.default is LEFT_OUT else {"default": field.default}
    return {"name": field.name, "kind": field.kind, "required": field.required, "help": field.help, **default}
