"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """A ``warning`` is what may go wrong, a ``problem`` what does; *remedy* says what to do about it."""

    name: str
    status: Literal["ok", "warning", "problem"]
    text: str
    remedy: str = ""
