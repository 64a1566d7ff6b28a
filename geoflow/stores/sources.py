"""The text of code by its fingerprint, so that two versions that attempts ran with can be read side by side later."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from geoflow.stores.leases import JobLeases

_TABLE = "sources"


class KeptSources(JobLeases):
    """The part of a `geoflow.stores.store.Store` that keeps the text of code."""

    def sources(self, codes: Collection[str]) -> dict[str, str]:
        """The texts of those of the *codes* that are kept."""
        return dict(self._kept("code, source", codes))

    def keep_sources(self, texts: Mapping[str, Callable[[], str]]) -> None:
        """Keep the texts of these codes; only of those that are new is it asked for."""
        known = {code for (code,) in self._kept("code", texts)}
        rows = [(code, text()) for code, text in texts.items() if code not in known]
        if not rows:
            return
        with self._transaction() as connection:
            self.make(connection, _TABLE)
            # Another process may have been faster.
            for row in rows:
                connection.execute("INSERT INTO sources VALUES (?, ?) ON CONFLICT (code) DO NOTHING", row)

    def _kept(self, columns: str, codes: Collection[str]) -> Sequence[Any]:
        if not codes or not self.has(_TABLE):
            return []
        return self._rows(f"SELECT {columns} FROM {_TABLE} WHERE code IN ({', '.join('?' * len(codes))})", *codes)
