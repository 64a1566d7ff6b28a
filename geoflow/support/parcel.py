"""JSON texts on their way between driver and worker that may be too many for one message: then they go by a file.

In memory they are as few at a time as one of them takes. A file is a list of texts, each behind its length in bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

PIECE = 16_000_000  # as long as a text becomes that is put together of many users' values
IN_MEMORY = 64_000_000  # what travels in a message; what is longer goes by a file, where worker and driver share one
_LENGTH = struct.Struct("<q")  # -1 is for None


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts, and None where there is none: those *kept*, or every *of*-th one of a *file*, from that at *place* on."""

    kept: Sequence[str | None] = ()
    file: str | None = None
    place: int = 0
    of: int = 1

    def __iter__(self) -> Iterator[str | None]:
        return iter(self.kept) if self.file is None else self._read(self.file)

    def _read(self, path: str) -> Iterator[str | None]:
        number = 0
        with open(path, "rb") as file:
            while head := file.read(_LENGTH.size):
                (length,) = _LENGTH.unpack(head)
                if number % self.of != self.place:
                    file.seek(max(length, 0), os.SEEK_CUR)
                else:
                    yield file.read(length).decode() if length >= 0 else None
                number += 1


class Spool:
    """Takes texts out of memory, into the file *path*, which is there from the first one on."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._file: BinaryIO | None = None

    @property
    def used(self) -> bool:
        return self._file is not None

    def take(self, texts: Iterable[str | None]) -> None:
        if self._file is None:
            self._file = open(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")  # noqa: SIM115
        for text in texts:
            data = b"" if text is None else text.encode()
            self._file.write(_LENGTH.pack(-1 if text is None else len(data)))
            self._file.write(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def packed(texts: Iterable[str], path: str | None) -> Texts:
    """*texts*, which may be made as they are asked for: kept, or in the file *path* where they are many."""
    kept: list[str] = []
    size = 0
    texts = iter(texts)
    for text in texts:
        kept.append(text)
        size += len(text)
        if size > IN_MEMORY and path is not None:
            spool = Spool(path)
            with contextlib.closing(spool):
                spool.take(kept)
                kept.clear()
                spool.take(texts)
            return Texts(file=path)
    return Texts(tuple(kept))
