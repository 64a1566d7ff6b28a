"""What a check found, as a person, a program or a notebook wants to have it."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from geoflow.checks.findings import ORDER, Finding
from geoflow.text import count, plain

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("code", "severity", "where", "job_type", "what", "why", "remedy")


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

        return pd.DataFrame([asdict(one) for one in self.findings], columns=list(_COLUMNS))

    def document(self) -> dict[str, Any]:
        """For programs: ``ok``, ``job_types``, and ``findings`` as dicts."""
        return {"ok": self.ok, "job_types": list(self.job_types), "findings": [asdict(one) for one in self.findings]}

    def to_json(self) -> str:
        return json.dumps(self.document(), indent=2)

    def lines(self, width: int = 80) -> Iterator[str]:
        """For people, in *width* columns where words allow it; the verdict comes last."""
        for one in self.findings:
            yield plain(f"{one.severity} {one.code}  {one.job_type}{f'  {one.where}' if one.where else ''}")
            for label, text in (
                ("", one.what),
                ("In production: " if one.code not in ("GF901", "GF902") else "So: ", one.why),
                ("To do: ", one.remedy),
            ):
                wrapper = textwrap.TextWrapper(
                    max(width, 40), initial_indent=f"  {label}", subsequent_indent=" " * (4 if label else 2)
                )
                wrapper.break_long_words = wrapper.break_on_hyphens = False
                yield from wrapper.wrap(text)
            yield ""
        yield from textwrap.wrap(self._verdict(), max(width, 40))

    def _verdict(self) -> str:
        numbers = [count(sum(one.severity == kind for one in self.findings), kind) for kind in ORDER]
        then = "Mend the errors, then check again." if not self.ok else ""
        if self.ok:
            then = "Nothing was found." if not self.findings else "Nothing keeps it from running."
        return f"{', '.join(self.job_types)}: {', '.join(numbers)}. {then}"

    def __repr__(self) -> str:
        return "\n".join(self.lines(min(shutil.get_terminal_size().columns, 80)))

    def _repr_html_(self) -> str:
        from geoflow.notebook.markup import element, line, text

        def drawn(one: Finding) -> str:
            state = {"error": "failed", "warning": "interrupted", "note": "queued"}[one.severity]
            badge = f'<span class="gf-is gf-{state} gf-badge">{one.severity} {one.code}</span>'
            where = f" <code>{text(one.where)}</code>" if one.where else ""
            parts = (
                ("", one.what),
                ("In production: " if one.code not in ("GF901", "GF902") else "So: ", one.why),
                ("To do: ", one.remedy),
            )
            told = "".join(line(f'<span class="gf-faint">{label}</span>{text(said)}') for label, said in parts)
            return f"{line(f'{badge} {text(one.job_type)}{where}')}{told}"

        return element(
            f"Check of {', '.join(self.job_types)}", [*map(drawn, self.findings), line(text(self._verdict()))]
        )
