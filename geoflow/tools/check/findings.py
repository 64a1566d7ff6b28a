"""What may be found in a job type. The catalogue has each code, what it would do in production, and how to mend it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from typing import Literal, NamedTuple

from geoflow.support.masking import mask_text
from geoflow.support.text import cut, plain

Severity = Literal["error", "warning", "note"]
ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: *what* it is, *where* (``"file:line"``), *why* it matters in production, and the *remedy*.

    An ``error`` keeps the job type from working; a ``warning`` is what works here, by luck or by geoflow's care, and
    may not elsewhere; a ``note`` is worth knowing.
    """

    code: str
    severity: Severity
    where: str | None
    job_type: str
    what: str
    why: str
    remedy: str


class FindingKind(NamedTuple):
    """What all findings of one code have in common. *title* is what the catalogue calls it."""

    severity: Severity
    title: str
    why: str
    remedy: str


def finding(code: str, job_type: str, what: str, where: str | None = None) -> Finding:
    """A finding of the catalogue; the text of users in *what* is made safe to show."""
    kind, text = RULES[code], cut(mask_text(plain(what)), 600)
    return Finding(code, kind.severity, where, job_type, text, kind.why, kind.remedy)


_ENTRY = re.compile(r"(\w+) (GF\d+): (.+)\n((?:  .+\n)+?)  To do: (.+\n(?:    .+\n)*)")

_CATALOGUE = resources.files("geoflow.tools.check").joinpath("catalogue.txt").read_text("utf-8")
RULES = {
    code: FindingKind(severity, title, " ".join(why.split()), " ".join(remedy.split()))
    for severity, code, title, why, remedy in _ENTRY.findall(_CATALOGUE)
}
