"""What calls returned, in the file that outlives their process: whole, or not there."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geoflow.core.batch import Batch
from geoflow.core.chunks import Chunk
from geoflow.core.models import Attempt, Category, Failure
from geoflow.core.retry import RetryPolicy
from geoflow.executors import returned, spool
from geoflow.executors.returned import NotSound, Returned, kept_in, read
from geoflow.executors.spool import SEAL_SECONDS, Keeping, Spool, text_of
from geoflow.support.jsonable import from_json, to_json
from geoflow.usercode.packing import Code

BASE = 1_700_000_000.25
SAID = Failure("no tile \ud800 here", "OSError", str(Category.TRANSIENT), True, "its traceback")
Row = tuple[str | None, Failure | None, str | None]

results = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=9), max_size=3).map(
    lambda value: to_json({"success": True, "result": value})
)
rows: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(results, st.none(), st.none() | st.text(min_size=1, max_size=9))
    | st.tuples(st.none(), st.just(SAID), st.none()),
    min_size=1,
    max_size=12,
)


def chunk_of(calls: int, number: int = 7, keys: Sequence[int] | None = None) -> Chunk:
    batch = Batch("scan", 2, 1, 0, 100, keys or range(101, 101 + calls), "[]", "[]")
    return Chunk(number, "tasks", "a" * 64, "j", 1, Code("scan", None, b""), batch, RetryPolicy(), epoch=3)


def add_all(keeping: Keeping | None, told: Sequence[Row], seconds: float, ends: bool = False) -> None:
    """Keep *told* as a worker does, each call of which took half of *seconds*."""
    assert keeping is not None
    due, started, now = 50.0 + SEAL_SECONDS, 50.0, 50.0
    write = keeping.write
    for place, (result, failure, output) in enumerate(told):
        started, now = 50.0 + place * seconds, 50.0 + (place + 0.5) * seconds
        if result is not None and output is None:
            text = result
        else:
            row = (101 + place, BASE + started, BASE + now, 0.5, result, failure and tuple(failure), output)
            text = text_of(row, f"t{place}")
        try:
            write((text + "\0").encode())
        except (ValueError, MemoryError):
            write = keeping.extend(text)
        if now > due:
            due = keeping.seal(place + 1, started, now, 0.5)
    if ends:
        keeping.seal(len(told), started, now, 0.5)


def kept(told: Sequence[Row], folder: Path, *, seconds: float, ends: bool = True) -> Path:
    """The file in which *told* are kept, each call of which took half of *seconds*."""
    keeping = Spool(folder / "slot-3-0", lambda: 0).begin(chunk_of(len(told)), "c0de", BASE, 50.0)
    add_all(keeping, told, seconds, ends)
    return folder / "slot-3-0-0.spool"


@given(rows, st.sampled_from([1e-5, 0.0015, 0.01]), st.booleans())
def test_S47_what_was_added_is_there_whether_the_chunk_ended_or_its_process_was_killed(
    told: list[Row], seconds: float, ends: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        found = read(kept(told, Path(name), seconds=seconds, ends=ends))
    assert found is not None
    assert (found.job_id, found.epoch, found.chunk, found.batch.task_type) == ("a" * 64, 3, 7, "scan")
    assert (found.batch.attempt, found.batch.retries, found.batch.losses, found.batch.first_key) == (2, 1, 0, 100)
    assert len(found.attempts) == len(told)
    assert [(one.key, one.outcome, one.result, one.failure, one.output) for one in found.attempts] == [
        (101 + place, "failed" if failure else "completed", result, failure, output)
        for place, (result, failure, output) in enumerate(told)
    ]
    assert all((one.slot, one.pid, one.code, one.attempt) == (3, os.getpid(), "c0de", 2) for one in found.attempts)
    begun, ended = [one.started_at for one in found.attempts], [one.ended_at for one in found.attempts]
    exact = seconds > SEAL_SECONDS  # each such call is sealed by itself
    near = 1e-6 if exact else SEAL_SECONDS + seconds
    assert begun == pytest.approx([BASE + 50.0 + place * seconds for place in range(len(told))], rel=0, abs=near)
    assert ended == pytest.approx(
        [BASE + 50.0 + (place + 0.5) * seconds for place in range(len(told))], rel=0, abs=near
    )
    if exact:
        assert {one.cpu for one in found.attempts} == {0.5}
    told_of = {101 + place: f"t{place}" for place, (_, failure, output) in enumerate(told) if failure or output}
    assert found.names == told_of


def _first(attempts: Sequence[Attempt], of: Sequence[Attempt]) -> bool:
    return list(attempts) == list(of[: len(attempts)])


@given(rows, st.sampled_from([1e-5, 0.01]), st.data())
def test_S47_a_file_that_is_cut_or_changed_gives_its_first_calls_as_they_were_or_nothing(
    told: list[Row], seconds: float, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = kept(told, Path(name), seconds=seconds)
        whole = read(path)
        assert whole is not None
        content = path.read_bytes()
        used = content.rstrip(b"\0")
        if data.draw(st.booleans(), label="cut"):
            changed = content[: data.draw(st.integers(0, len(used) - 1), label="at")]
        else:
            at = data.draw(st.integers(0, len(used) - 1), label="at")
            flipped = content[at] ^ data.draw(st.integers(1, 255), label="by")
            changed = content[:at] + bytes([flipped]) + content[at + 1 :]
        path.write_bytes(changed)
        try:
            found = read(path)
        except NotSound:
            return
    assert found is None or _first(found.attempts, whole.attempts)


@pytest.mark.parametrize("keys", [None, [101, 105, 109]])
def test_S47_the_keys_may_be_any(tmp_path: Path, keys: list[int] | None) -> None:
    keeping = Spool(tmp_path / "slot-0-0", lambda: 0).begin(chunk_of(3, keys=keys), "c", BASE, 50.0)
    add_all(keeping, [('{"success":true}', None, None)] * 3, 0.01)
    found = read(tmp_path / "slot-0-0-0.spool")
    assert found is not None
    assert [attempt.key for attempt in found.attempts] == (keys or [101, 102, 103])


def test_S47_a_file_grows_with_what_it_is_given(tmp_path: Path) -> None:
    long = to_json({"success": True, "result": "x" * 300_000})
    told: list[Row] = [(long, None, None), ('{"success":true}', None, None), (long, None, None)]
    found = read(kept(told, tmp_path, seconds=0.01, ends=False))
    assert found is not None
    assert [attempt.result for attempt in found.attempts] == [result for result, _, _ in told]


def test_S47_a_file_is_used_again_once_its_chunk_is_written_and_no_sooner(tmp_path: Path) -> None:
    written = [0]
    files = Spool(tmp_path / "slot-0-0", lambda: written[0])
    for number in range(1, 7):
        calls = 7 - number  # fewer than were there before
        keeping = files.begin(chunk_of(calls, number), "c", BASE, 50.0)
        add_all(keeping, [(to_json({"success": True, "number": number}), None, None)] * calls, 1e-5, ends=True)
        written[0] = number - 2
    found = {one.chunk: one for one in kept_in(tmp_path).values()}
    assert len(list(tmp_path.iterdir())) == len(found) == 3
    assert set(found) == {4, 5, 6}
    assert {number: len(one.attempts) for number, one in found.items()} == {4: 3, 5: 2, 6: 1}
    assert all(f'"number":{number}' in str(one.attempts[0].result) for number, one in found.items())


def test_S47_a_file_that_has_had_much_is_not_kept_so_large(tmp_path: Path) -> None:
    files, long = Spool(tmp_path / "slot-0-0", lambda: 9), to_json({"success": True, "result": "x" * 5_000_000})
    add_all(files.begin(chunk_of(1, 8), "c", BASE, 50.0), [(long, None, None)], 0.01)
    add_all(files.begin(chunk_of(1, 9), "c", BASE, 50.0), [('{"success":true}', None, None)], 0.01)
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size < 100_000


def test_S47_where_memory_does_not_suffice_for_a_copy_the_call_has_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Large(str):
        def __add__(self, other: str) -> str:
            raise MemoryError

    keeping = Spool(tmp_path / "slot-0-0", lambda: 0).begin(chunk_of(2), "c", BASE, 50.0)
    add_all(keeping, [(Large("{}"), None, None), ('{"success":true}', None, None)], 0.01)
    found = read(tmp_path / "slot-0-0-0.spool")
    assert found is not None
    assert found.attempts == []
    assert len(caplog.records) == 1


def test_S47_where_there_is_no_room_that_is_said_once_and_the_calls_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    files = Spool(tmp_path / "slot-0-0", lambda: 0)
    keeping = files.begin(chunk_of(3), "c", BASE, 50.0)
    monkeypatch.setattr(os, "pwrite", full)
    long = to_json({"success": True, "result": "x" * 300_000})
    add_all(keeping, [('{"success":true}', None, None), (long, None, None), ('{"success":true}', None, None)], 0.01)
    assert files.begin(chunk_of(3, 8), "c", BASE, 50.0) is None
    found = read(tmp_path / "slot-0-0-0.spool")
    assert found is not None
    assert len(found.attempts) == 1, "what comes behind one that is not there could be taken for it"
    assert [record.message for record in caplog.records] == [
        "what calls return cannot be kept: [Errno 28] No space left on device; if this process is killed, they run "
        "again"
    ]
    monkeypatch.undo()
    assert files.begin(chunk_of(3, 9), "c", BASE, 50.0) is not None


def _newer(path: Path) -> None:
    path.write_bytes(b"gfspool4" + path.read_bytes()[8:])


def _another(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + bytes(200))


def _of_another_session(path: Path) -> None:
    (other := path.parent / "other").mkdir()
    content = kept([('{"success":true}', None, None)], other, seconds=0.01).read_bytes()
    path.write_bytes(content)


def _link(path: Path) -> None:
    path.rename(path.parent / "elsewhere")
    path.symlink_to(path.parent / "elsewhere")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _wrong_result(path: Path) -> None:
    _rewrite(path, b'{"success":true}', b'{"success":null}')


def _rewrite(path: Path, old: bytes, new: bytes) -> None:
    path.write_bytes(path.read_bytes().replace(old, new))


def _huge(path: Path) -> None:
    os.truncate(path, returned._LARGEST + 1)


def _no_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_242)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_newer, "it is of another version"),
        (_another, "it is no spool"),
        (_of_another_session, "it is of another session"),
        (_link, "symbolic links"),
        (_folder, "directory|no file"),
        (_pipe, "it is no file"),
        (_wrong_result, "it is damaged"),
        (_huge, "it is too large"),
        (None, "another user owns it"),
    ],
)
def test_S43_S47_what_is_no_spool_of_this_session_is_left_out_and_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    spoil: Callable[[Path], None] | None,
    reason: str,
) -> None:
    path = kept([('{"success":true}', None, None)], tmp_path, seconds=0.01)
    spoil(path) if spoil is not None else _no_owner(monkeypatch)
    assert [one for where, one in kept_in(tmp_path, "slot-3-0-").items() if where == path] == []
    (record,) = caplog.records
    assert record.getMessage().startswith("what calls had returned is left out, and they run again: slot-3-0-0.spool: ")
    assert re.search(reason, record.getMessage())


FIELDS = ["folder", "job_id", "epoch", "chunk", "keys", "first", "count", "code", "base", "begun", "pid", "attempt"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 62), 1 << 62) | st.floats() | st.text(max_size=3), st.lists
)


@given(st.dictionaries(st.sampled_from(FIELDS), json_values))
def test_S43_S47_a_header_of_any_values_is_read_as_data_or_left_out(changes: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = kept([('{"success":true}', None, None)], Path(name), seconds=0.01)
        content = bytearray(path.read_bytes())
        _, length, times, texts, _ = spool.HEAD.unpack_from(content)
        header = from_json(bytes(content[spool.HEADER : spool.HEADER + length])) | changes
        text = to_json(header).encode()
        shift = -(-(len(text) - length) // 8) * 8
        body = bytes(content[times:])
        head = spool.HEAD.pack(spool.MAGIC, len(text), times + shift, texts + shift, crc32(text))
        seals = bytes(content[spool.HEAD.size : spool.HEADER])
        path.write_bytes(head + seals + text.ljust(times + shift - spool.HEADER, b"\0") + body)
        try:
            found = read(path)
        except NotSound:
            return
    assert isinstance(found, Returned)
    assert isinstance(found.job_id, str)
    assert all(type(number) is int for number in (found.epoch, found.chunk, *(one.key for one in found.attempts)))


def test_the_layout_is_what_it_was() -> None:
    """Another one is to have another number at the end of the magic."""
    assert (spool.MAGIC, spool.HEADER, spool.TIMES.size) == (b"gfspool3", struct.calcsize("<8sqqqI4x") + 64, 32)
