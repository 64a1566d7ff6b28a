"""The stages of one job type in their order, while cells that define them are run again in any order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from geoflow.contract import normalise
from geoflow.errors import DefinitionError
from geoflow.flow.stage import Defined, step


class Chain:
    """Stages by name. Each follows one, or is the first, and is followed by one at most."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._stages: dict[str, Defined] = {}
        self._replaced: dict[str, str] = {}

    def __iter__(self) -> Iterator[Defined]:
        return iter(self.order())

    def order(self) -> list[Defined]:
        """The stages from the first on, as far as each is followed by one."""
        following = {stage.previous: stage for stage in self._stages.values()}
        found: list[Defined] = []
        while (stage := following.get(found[-1].name if found else None)) is not None:
            found.append(stage)
        return found

    def whole(self) -> list[Defined]:
        """All stages in order; ``DefinitionError`` when there are none, or one hangs on nothing."""
        order = self.order()
        if not order:
            raise DefinitionError(
                f"{self._job} has no stages yet: decorate a function with @{self._job}.stage. If its own cell was run "
                "again, run those of its stages again too."
            )
        for stage in self._stages.values():
            if stage.previous is not None and stage.previous not in self._stages:
                gone = self._replaced.get(stage.previous)
                raise DefinitionError(
                    f"{self._job}: {stage.name} follows {stage.previous}, which is no stage any more"
                    f"{f', since {gone} took its place' if gone else ''}. Run the cell of {stage.name} again with a "
                    f"stage that is there: {', '.join(found.name for found in order)}."
                )
        return order

    def known(self, previous: Any, kind: str) -> Defined:
        """The stage that *previous*, a function or its name, means in ``@job.each(previous)``."""
        name = previous if isinstance(previous, str) else getattr(previous, "__name__", repr(previous))
        if name in self._stages:
            return self._stages[name]
        gone = f" any more ({self._replaced[name]} took its place)" if name in self._replaced else ""
        there = f"It has no stages yet: begin with one that is decorated with @{self._job}.stage."
        if self._stages:
            names = [stage.name for stage in self.order()]
            there = f"Its stages are {', '.join(names)}: write, say, @{self._job}.{kind}({names[-1]})."
        raise DefinitionError(f"{self._job}: {name} is no stage{gone}, so no other can follow it. {there}")

    def take(self, stage: Defined, *, in_file: bool) -> list[str]:
        """Put *stage* in the place of the one of its name, and of another that followed the same one.

        Returns what its author should know. In a file no stage replaces another: that is a ``DefinitionError``, and so
        are a circle and two names that differ in capitals only.
        """
        alike = [name for name in self._stages if normalise(name) == normalise(stage.name)]
        if any(in_file or name != stage.name for name in alike):
            raise DefinitionError(f"{self._job}: two stages are called {alike[0]}: rename one.")
        before = stage.previous
        while before is not None and before in self._stages:
            if before == stage.name:
                raise DefinitionError(f"{self._job}: {stage.name} cannot follow {stage.previous}, which follows it.")
            before = self._stages[before].previous
        remarks = self._drop_rivals(stage, in_file)
        self._stages[stage.name] = stage
        self._replaced.pop(stage.name, None)
        for following in self._stages.values():
            if following.previous == stage.name:
                try:
                    step(self._job, 1, "", following, stage)
                except DefinitionError as exc:
                    again = f"Run the cell of {following.name} again, made to fit; until then the job cannot run."
                    remarks.append(f"{exc} {again}")
        return remarks

    def _drop_rivals(self, new: Defined, in_file: bool) -> list[str]:
        """Drop the stage that *new* comes in place of: it was renamed, or would be a second branch."""
        remarks = []
        for old in list(self._stages.values()):
            if old.previous != new.previous or old.name == new.name:
                continue
            place = f"follows {new.previous}" if new.previous else "is the first stage"
            again = f"@{self._job}.{'reduce' if old.kind == 'reduce' else 'each'}({new.name})"
            why = f"{self._job}: {new.name} {place}, as {old.name} does, but stages come one after another."
            if in_file:
                raise DefinitionError(f"{why} Let one follow the other, as with {again}.")
            remarks.append(f"{why} So it replaces {old.name}; to keep both, run the cell of {old.name} with {again}.")
            del self._stages[old.name]
            self._replaced[old.name] = new.name
        return remarks
