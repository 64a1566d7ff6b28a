"""The figures of one run: what was measured in each round, which targets they have, and the table of them."""

import statistics
from dataclasses import dataclass, field
from typing import Any

_HEAD = ("", "min", "median", "max", "unit", "target")
_WIDTHS = (42, 10, 10, 10, 8, 15)


@dataclass
class Figure:
    """One line of the table: a value a round. A target holds for the median."""

    part: str
    name: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def target(self) -> str:
        """The target in words, and whether it is met; empty where there is none."""
        if self.at_least is not None:
            return f">= {self.at_least:g} {'met' if self.median >= self.at_least else 'missed'}"
        if self.at_most is not None:
            return f"<= {self.at_most:g} {'met' if self.median <= self.at_most else 'missed'}"
        return ""

    def cells(self) -> tuple[str, ...]:
        spread = [shown(value) for value in (min(self.values), self.median, max(self.values))]
        return f"{self.part}: {self.name}", *spread, self.unit, self.target

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the values of all rounds, in order."""
        targets = {"at_least": self.at_least, "at_most": self.at_most}
        return {"part": self.part, "name": self.name, "unit": self.unit, "values": self.values, **targets}


class Figures:
    """All figures of a run, in the order in which they were first added."""

    def __init__(self) -> None:
        self._figures: dict[tuple[str, str], Figure] = {}

    def add(
        self,
        part: str,
        name: str,
        value: float,
        unit: str = "ratio",
        *,
        at_least: float | None = None,
        at_most: float | None = None,
    ) -> None:
        """The *value* of one more round."""
        figure = self._figures.setdefault((part, name), Figure(part, name, unit, at_least, at_most))
        figure.values.append(value)

    def of(self, part: str) -> list[Figure]:
        return [figure for figure in self._figures.values() if figure.part == part]

    def as_dicts(self) -> list[dict[str, Any]]:
        return [figure.as_dict() for figure in self._figures.values()]


def shown(value: float) -> str:
    """*value* with three digits that count, and no exponent."""
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def heading(markdown: bool) -> str:
    if markdown:
        return f"| {' | '.join(_HEAD)} |\n|---|---|---|---|---|---|"
    return line(_HEAD, markdown) + "\n" + "-" * (sum(_WIDTHS) + len(_WIDTHS) - 1)


def line(cells: tuple[str, ...], markdown: bool) -> str:
    """One row of the table."""
    if markdown:
        return f"| {' | '.join(cells)} |"
    first, *numbers, unit, target = (
        cell.ljust(width) if place in (0, 4, 5) else cell.rjust(width)
        for place, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return " ".join((first, *numbers, unit, target)).rstrip()
