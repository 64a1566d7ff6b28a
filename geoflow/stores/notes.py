"""What sessions note of several jobs: by a name, once for a store, for as long as the store is there.

The table is made when it is first needed; a geoflow that does not know it leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geoflow.stores.reused import ReusedResults


class Notes(ReusedResults):
    """The part of a `geoflow.stores.store.Store` that keeps notes: JSON text, each by its name."""

    def noted(self, name: str) -> str | None:
        """The note of that name."""
        rows = self._rows("SELECT value FROM note WHERE name = ?", name) if self.has("note") else []
        return str(rows[0][0]) if rows else None

    def keep_note(
        self, name: str, value: str, now: float, replace: Callable[[str], bool] = lambda before: False
    ) -> str:
        """Note *value*, unless there is one of that name that is not to be *replaced*: what is noted then.

        Of several that note at once, each is told what the first has.
        """

        def before(connection: Any) -> str | None:
            row = connection.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
            return None if row is None else str(row[0])

        with self._transaction() as connection:
            self.make(connection, "note")
            found = before(connection)
            if found is not None and not replace(found):
                return found
            connection.execute("DELETE FROM note WHERE name = ?", (name,))
            connection.execute("INSERT INTO note (name, created_at, value) VALUES (?, ?, ?)", (name, now, value))
        return value
