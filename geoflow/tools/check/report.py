"""What a check found, as a person, a program or a notebook wants to have it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from geoflow.render.report import Entry, Report
from geoflow.support.text import count
from geoflow.tools.check.findings import ORDER, Finding

if TYPE_CHECKING:
    import pandas as pd

_FAILED, _UNTRIED = {"GF312", "GF331", "GF903"}, {"GF901", "GF902"}  # codes of the trial


class CheckReport(Report):
    """The findings, errors first. It is true where there are no errors.

    ``findings`` is a tuple of `Finding`; ``job_types`` names what was checked.
    """

    titled = False

    def __init__(self, job_types: Sequence[str], findings: Iterable[Finding]) -> None:
        self.job_types = tuple(job_types)
        self.findings = tuple(
            sorted(findings, key=lambda fault: (self.job_types.index(fault.job_type), ORDER.index(fault.severity)))
        )

    @property
    def exit_status(self) -> int:  # type: ignore[override]
        """1 when there is an error, else 0."""
        return int(not self.ok)

    @property
    def ok(self) -> bool:
        """Whether there are no errors; warnings and notes do not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def to_frame(self) -> pd.DataFrame:
        """One row for each finding, with its fields as columns."""
        import pandas as pd

        return pd.DataFrame(map(asdict, self.findings), columns=[field.name for field in fields(Finding)])

    def document(self) -> dict[str, Any]:
        """For programs: ``ok``, ``job_types``, and ``findings`` as dicts."""
        return {"ok": self.ok, "job_types": list(self.job_types), "findings": list(map(asdict, self.findings))}

    @property
    def title(self) -> str:
        return f"Check of {', '.join(self.job_types)}"

    def parts(self) -> Iterator[str | Entry]:
        """The findings, and the verdict last."""
        for finding in self.findings:
            said = ("", finding.what), ("In production: ", finding.why), ("To do: ", finding.remedy)
            badge = f"{finding.severity} {finding.code}"
            yield Entry(finding.severity, badge, finding.job_type, said, finding.where)
        numbers = [count(sum(finding.severity == kind for finding in self.findings), kind) for kind in ORDER]
        codes = {finding.code for finding in self.findings}
        then = "Nothing was found that stops it." if codes else "Nothing was found."
        if not self.ok:
            then = "Mend the errors, then check again."
        elif codes & _FAILED:
            then = "It did not come through the trial: mend it, or give other parameters."
        elif codes & _UNTRIED:
            then = "No error was found, but not all of it was tried."
        yield f"{', '.join(self.job_types)}: {', '.join(numbers)}. {then}"
