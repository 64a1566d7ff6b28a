"""What a check found, as a person, a program or a notebook wants to have it."""

from __future__ import annotations

import functools
import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from geoflow.support.text import count, plain
from geoflow.tools.check.findings import ORDER, Finding

if TYPE_CHECKING:
    import pandas as pd

_wrap = functools.partial(textwrap.wrap, break_long_words=False, break_on_hyphens=False)
_FAILED, _UNTRIED = {"GF312", "GF331", "GF903"}, {"GF901", "GF902"}  # codes of the trial
_STATES = {"error": "failed", "warning": "interrupted", "note": "queued"}  # whose colours they have in a notebook


class Report:
    """The findings, errors first. It is true where there are no errors.

    ``findings`` is a tuple of `Finding`; ``job_types`` names what was checked.
    """

    def __init__(self, job_types: Sequence[str], findings: Iterable[Finding]) -> None:
        self.job_types = tuple(job_types)
        self.findings = tuple(
            sorted(findings, key=lambda one: (self.job_types.index(one.job_type), ORDER.index(one.severity)))
        )

    @property
    def exit_status(self) -> int:
        """1 when there is an error, else 0."""
        return int(not self.ok)

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings and notes do not count."""
        return not any(one.severity == "error" for one in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def to_frame(self) -> pd.DataFrame:
        """One row for each finding, with its fields as columns."""
        import pandas as pd

        return pd.DataFrame(map(asdict, self.findings), columns=[field.name for field in fields(Finding)])

    def document(self) -> dict[str, Any]:
        """For programs: ``ok``, ``job_types``, and ``findings`` as dicts."""
        return {"ok": self.ok, "job_types": list(self.job_types), "findings": [asdict(one) for one in self.findings]}

    def to_json(self) -> str:
        return json.dumps(self.document(), indent=2)

    def lines(self, width: int = 80) -> Iterator[str]:
        """For people, in *width* columns where words allow it; the verdict comes last."""
        width = max(width, 40)
        for one in self.findings:
            yield plain(f"{one.severity} {one.code}  {one.job_type}{f'  {one.where}' if one.where else ''}")
            for label, said in _parts(one):
                yield from _wrap(said, width, initial_indent=f"  {label}", subsequent_indent="    " if label else "  ")
            yield ""
        yield from _wrap(self._verdict(), width)

    def _verdict(self) -> str:
        numbers = [count(sum(one.severity == kind for one in self.findings), kind) for kind in ORDER]
        codes = {one.code for one in self.findings}
        then = "Nothing was found that stops it." if codes else "Nothing was found."
        if not self.ok:
            then = "Mend the errors, then check again."
        elif codes & _FAILED:
            then = "It did not come through the trial: mend it, or give other parameters."
        elif codes & _UNTRIED:
            then = "No error was found, but not all of it was tried."
        return f"{', '.join(self.job_types)}: {', '.join(numbers)}. {then}"

    def __repr__(self) -> str:
        return "\n".join(self.lines(min(shutil.get_terminal_size().columns, 80)))

    def _repr_html_(self) -> str:
        from geoflow.render.markup import element, line, text

        def drawn(one: Finding) -> str:
            badge = f'<span class="gf-is gf-{_STATES[one.severity]} gf-badge">{one.severity} {one.code}</span>'
            where = f" <code>{text(one.where)}</code>" if one.where else ""
            told = (line(f'<span class="gf-faint">{label}</span>{text(said)}') for label, said in _parts(one))
            return f"{line(f'{badge} {text(one.job_type)}{where}')}{''.join(told)}"

        title = f"Check of {', '.join(self.job_types)}"
        return element(title, [*map(drawn, self.findings), line(text(self._verdict()))])


def _parts(one: Finding) -> tuple[tuple[str, str], ...]:
    return ("", one.what), ("In production: ", one.why), ("To do: ", one.remedy)
