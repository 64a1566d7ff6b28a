"""What a process that was killed left behind: what had returned, what ran, and folders that nobody needs any more.

A session's folder proves itself: a file in it says which process made it, and has a secret with which the session seals
the rows of the jobs that it drives. What a row says of a folder counts only with the folder's own seal; else a store
from elsewhere could name any folder.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import json
import os
import secrets
import shutil
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geoflow.executors.marker import Mark, printed_before, read_mark, written_by
from geoflow.executors.printed import read_output
from geoflow.executors.returned import Returned, kept_in
from geoflow.support.identity import PREFIX, boot, born, end_group, is_left_behind, is_running, made_by

_OWNER, _SEEN = "owner", "seen"
# So long a folder is kept that says what had returned, and what ran, when its session was killed: a resume asks for it.
_KEPT_SECONDS = 86_400.0
_EARLIER = 4  # so many owners in a row may be killed before they have taken in what the one before them left
_END_SECONDS = 1.0
_LONGEST = 10_000  # bytes, of the file that says whose a folder is
_signed: dict[Path, dict[str, Any]] = {}  # by this process


def sign(folder: Path) -> None:
    """Write into the new *folder* whose it is."""
    owner = {**_identity(os.getpid()), "secret": secrets.token_hex(16)}
    with open(os.open(folder / _OWNER, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(owner, file)
    _signed[folder] = owner


def seal(folder: str | None, store: str, job_id: str) -> str | None:
    """What proves that the session of *folder* drives the job of the store."""
    if not folder:
        return None
    owner = _signed.get(Path(folder)) or _owner(Path(folder))
    return None if owner is None else _seal(owner, store, job_id)


def _seal(owner: dict[str, Any], store: str, job_id: str) -> str:
    return hmac.new(str(owner.get("secret")).encode(), f"{store}|{job_id}".encode(), "sha256").hexdigest()


def ran_at_death(owner_json: str, store: str, job_id: str, limit: int) -> dict[int, str | None] | None:
    """The keys of the tasks that ran when the job's last owner was killed, each with what it had printed, of which at
    most *limit* bytes; None when unknown.

    *owner_json* is what the job's row says of it, see `Store.claim`. Of an owner that still lives, and gave the job up
    when its store failed, no task is to blame: it has ended them all.
    """
    proven = _proven(_read(owner_json), store, job_id)
    if proven is None:
        return None
    folder, owner = proven
    if _lives(owner):
        return {}
    try:
        marks = _marks(folder)
        (folder / _SEEN).touch(0o600)
    except OSError:
        return None
    ran = {path: (mark, before) for path, (mark, before) in marks.items() if mark.position > 0}
    printed = {path: read_output(path.with_suffix(".out"), limit, before) for path, (_, before) in ran.items()}
    return {mark.key: printed[path] for path, (mark, _) in ran.items()} if marks else None


def at_work(owner_json: str, store: str, job_id: str) -> Path | None:
    """The folder of the session that drives the job now; None where it cannot be looked at from here."""
    proven = _proven(_read(owner_json), store, job_id)
    return proven[0] if proven is not None and _lives(proven[1]) else None


def returned_at_death(owner_json: str, store: str, job_id: str) -> dict[Path, Returned]:
    """What calls of the job had returned when its owners were killed, and may not be in the store; by the file.

    The workers of these have ended then, and return no more.
    """
    row = _read(owner_json)
    found = {}
    for proven in (_proven(one, store, job_id) for one in (row, *_earlier(row))):
        if proven is not None and not _lives(proven[1]):
            _clear_all(proven[0])
            found.update({path: kept for path, kept in _unwritten(proven[0]).items() if kept.job_id == job_id})
    return found


def with_earlier(owner: dict[str, Any], before: str | None) -> dict[str, Any]:
    """The *owner* of a job as its row is to name it, with the folders of those *before*, by the row until now.

    One that was killed before it had taken in what they left is itself followed by another.
    """
    row = _read(before or "{}")
    named = [{"folder": one.get("folder"), "seal": one.get("seal")} for one in (row, *_earlier(row))]
    earlier = [one for one in named if isinstance(one["folder"], str) and one["folder"] != owner.get("folder")]
    return {**owner, "earlier": earlier[:_EARLIER]} if earlier else owner


def _read(owner_json: str) -> dict[str, Any]:
    """What a job's row says of its owner: it may say anything."""
    try:
        row = json.loads(owner_json)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}


def _earlier(row: dict[str, Any]) -> list[dict[str, Any]]:
    earlier = row.get("earlier")
    return [one for one in earlier if isinstance(one, dict)][:_EARLIER] if isinstance(earlier, list) else []


def _proven(row: dict[str, Any], store: str, job_id: str) -> tuple[Path, dict[str, Any]] | None:
    """The folder that *row* names, and whose it is by its own account; None where it does not prove itself."""
    try:
        folder = Path(row["folder"])
        owner = _owner(folder)
        if owner is not None and hmac.compare_digest(str(row["seal"]), _seal(owner, store, job_id)):
            return folder, owner
    except (ValueError, TypeError, KeyError, OSError):
        pass
    return None


def _unwritten(folder: Path) -> dict[Path, Returned]:
    """What is kept in the folder that may not be in the store, by the file."""
    kept = kept_in(folder)
    marks = {path: folder / f"{path.stem.rpartition('-')[0]}.mark" for path in kept}
    written = {mark: written_by(mark.read_bytes()) for mark in set(marks.values()) if mark.exists()}
    return {path: returned for path, returned in kept.items() if returned.chunk > written.get(marks[path], 0)}


def _end_workers(folder: Path) -> None:
    """The reaper does it, within milliseconds; by then they could return more than was taken in."""
    marks = [mark for mark, _ in _marks(folder).values() if is_running(mark.pid, mark.born)]
    for mark in marks:
        end_group(mark.pid, mark.born)
    until = time.monotonic() + _END_SECONDS
    while any(is_running(mark.pid, mark.born) for mark in marks) and time.monotonic() < until:
        time.sleep(0.002)


def clear(home: Path) -> bool:
    """Remove what an attempt made in its *home*, and in the folders that links there lead to; whether all is gone.

    A link leads to a folder whose name proves that it is this home's. It stays for as long as that does.
    """
    try:
        if not _is_ours(home, stat.S_ISDIR):
            return False
        for link in filter(Path.is_symlink, home.iterdir()):
            beside = Path(os.readlink(link))
            if beside.name == f".{home.name}-{link.name}":
                shutil.rmtree(beside, ignore_errors=True)
                if os.path.lexists(beside):
                    return False
    except OSError:
        return not os.path.lexists(home)
    shutil.rmtree(home, ignore_errors=True)
    return not os.path.lexists(home)


def clear_behind(folder: Path, pid: int) -> None:
    """Clear the homes in this session's *folder* of the worker *pid*, which was ended, and of what had ended before.

    That may take long, and is nothing to wait for.
    """
    homes = [home for home in folder.glob(f"{PREFIX}*") if made_by(home.name) == pid or is_left_behind(home.name)]
    if homes:
        threading.Thread(target=_clear_dead, args=(homes,), daemon=True, name="geoflow-clear").start()


def _clear_dead(homes: list[Path]) -> bool:
    """Clear the *homes* of processes that were sent their signal, and may have yet to die of it; whether all are."""
    until = time.monotonic() + _END_SECONDS
    while homes := [home for home in homes if not (is_left_behind(home.name) and clear(home))]:
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True


def remove(folder: Path) -> None:
    """Remove this session's *folder*, whose workers are ended; but for what says what else there is to remove."""
    if _clear_dead(list(folder.glob(f"{PREFIX}*"))):
        shutil.rmtree(folder, ignore_errors=True)


def _clear_all(folder: Path) -> None:
    """Clear all homes in the *folder* of a session that is gone."""
    _end_workers(folder)
    for home in folder.glob(f"{PREFIX}*"):
        clear(home)


def clear_left(temp: Path) -> None:
    """Clear the homes in *temp* that processes which are gone left, workers of sessions that are gone among them.

    Each session that opens its store does so: it looks no further than it must.
    """
    for name in os.listdir(temp):
        if name.startswith(PREFIX):
            folder = temp / name
            with contextlib.suppress(OSError):
                inside = os.listdir(folder)
                if _OWNER not in inside:
                    if is_left(folder):
                        clear(folder)
                elif any(each.startswith(PREFIX) for each in inside) and is_left(folder):
                    _clear_all(folder)


def sweep(temp: Path) -> None:
    """Remove what sessions that are gone left in *temp*, but for what a resume may still ask for."""
    clear_left(temp)
    for folder in temp.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if not is_left(folder) or any(map(Path.is_symlink, folder.iterdir())) or any(folder.glob(f"{PREFIX}*")):
                continue
            asked = (folder / _SEEN).exists() or not any(mark.position > 0 for mark, _ in _marks(folder).values())
            if _age(folder) > _KEPT_SECONDS or (asked and not _unwritten(folder)):
                shutil.rmtree(folder, ignore_errors=True)


def is_left(folder: Path) -> bool:
    """Whether *folder* is a session's, and the session is gone for sure.

    One without an account of whose it is has its name to say so: multiprocessing's sockets are in such a folder, and a
    process may be killed between the folder and the account.
    """
    if not os.path.lexists(folder / _OWNER):
        return is_left_behind(folder.name) and _is_ours(folder, stat.S_ISDIR)
    owner = _owner(folder)
    return owner is not None and not _lives(owner) and not _is_read(folder / "workers")


def _is_ours(path: Path, is_kind: Callable[[int], bool]) -> bool:
    status = path.lstat()
    return is_kind(status.st_mode) and status.st_uid == os.getuid()


def _owner(folder: Path) -> dict[str, Any] | None:
    """Whose the folder is, by its own account; None where it is no folder of a session of this user on this machine."""
    path = folder / _OWNER
    try:
        if not folder.name.startswith(PREFIX):
            return None
        if not (_is_ours(folder, stat.S_ISDIR) and _is_ours(path, stat.S_ISREG)) or path.lstat().st_size > _LONGEST:
            return None
        owner = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(owner, dict) and owner.get("host") == socket.gethostname() and isinstance(owner.get("pid"), int)
    return owner if ours else None


def _marks(folder: Path) -> dict[Path, tuple[Mark, int]]:
    """The marks in *folder*, each with how much of its worker's output is not the running call's."""
    contents = {path: path.read_bytes() for path in folder.glob("slot-*.mark")}
    return {path: (mark, printed_before(said)) for path, said in contents.items() if (mark := read_mark(said))}


def _age(folder: Path) -> float:
    return time.time() - folder.stat().st_mtime


def _identity(pid: int) -> dict[str, Any]:
    """Which process that is: a number alone may be another's by now, or this very one's after a container's restart."""
    return {"pid": pid, "start": born(pid), "boot": boot(), "host": socket.gethostname()}


def _lives(owner: dict[str, Any]) -> bool:
    return owner.get("boot") == boot() and is_running(owner["pid"], owner.get("start"))


def _is_read(pipe: Path) -> bool:
    """Whether somebody reads the pipe: a session and its reaper do, for as long as they live."""
    try:
        if not stat.S_ISFIFO(pipe.lstat().st_mode):
            return False
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as exc:
        return exc.errno not in (errno.ENXIO, errno.ENOENT)
    return True
