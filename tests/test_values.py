"""S12, S21: what becomes JSON, how, and what is refused with which words."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import enum
import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, ConfigDict, Field, RootModel, SecretStr

from geoflow.errors import UnstorableValue
from geoflow.values import MAX_DEPTH, from_json, to_json

relaxed = settings(deadline=None)


class Colour(enum.Enum):
    RED = "red"
    DAY = date(2024, 2, 29)
    NOTHING = None
    ALIEN = object()


class Level(enum.IntEnum):
    LOW = 1


class Band(enum.StrEnum):
    NIR = "nir"


class Access(enum.Flag):
    READ = 1
    WRITE = 2


class Bounds(NamedTuple):
    west: float
    south: float


@dataclasses.dataclass(frozen=True)
class Tile:
    name: str
    _checksum: int
    bounds: Bounds


@dataclasses.dataclass(slots=True)
class Node:
    parent: Any = None


class Window(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)

    day: date
    path: Path
    tags: set[str] = Field(default_factory=set)
    extra: Any = None


class Shape:
    """Stands for the geometries of shapely, geojson and fiona, which all speak this one protocol."""

    def __init__(self, geo: object) -> None:
        self.geo = geo

    @property
    def __geo_interface__(self) -> object:
        return self.geo


class Evil:
    @property
    def __geo_interface__(self) -> object:
        raise OSError("the file is gone")


class EvilModel:
    def model_dump(self) -> dict[str, object]:
        raise RuntimeError("no\ud800")


class EvilDict(dict[str, object]):
    def items(self) -> Any:
        raise ValueError("no items today")


class EvilText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class Unspeakable:
    @property
    def __geo_interface__(self) -> object:
        raise EvilText


class EvilRepr:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class EvilLevel(enum.Enum):
    A = 1

    @property
    def value(self) -> int:
        raise RuntimeError("no value")


class DictWithView(dict[str, int]):
    """Shows something else than it stores, as lazy dicts do."""

    def items(self) -> Any:
        return [("shown", 1)]


def there_and_back(value: object) -> Any:
    return from_json(to_json(value))


def refusal(value: object, *, where: str = "result") -> str:
    with pytest.raises(UnstorableValue) as caught:
        to_json(value, where=where)
    message = str(caught.value)
    message.encode()  # A message that cannot be stored would take the refusal down with it.
    return message


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=25,
)

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats()
    | st.text(max_size=5)
    | st.dates()
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.times()
    | st.timedeltas()
    | st.uuids()
    | st.decimals(allow_nan=False)
    | st.sampled_from([Colour.RED, Colour.DAY, Level.LOW, Band.NIR, Access.READ | Access.WRITE])
    | st.sampled_from([np.float32(0.1), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True), np.datetime64("NaT")])
    | st.sampled_from([Path("a/b"), pd.NaT, pd.NA, pd.Timestamp("2024-01-01"), np.ma.masked])
)
storable = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.builds(Bounds, inner, inner)
        | st.builds(Node, inner)
        | st.sets(scalars.filter(lambda value: value is not np.ma.masked), max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.dictionaries(st.integers(), inner, max_size=4)
        | st.builds(lambda value: Window(day=date(2024, 1, 1), path=Path("p"), extra=value), inner)
    ),
    max_leaves=15,
)


# What passes unchanged


@relaxed
@given(json_values)
def test_S12_json_comes_back_equal_and_of_the_same_types(value: object) -> None:
    text = to_json(value)
    back = from_json(text)
    assert type(text) is str
    assert repr(back) == repr(_without_infinities(value))


def _without_infinities(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_without_infinities(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_infinities(item) for key, item in value.items()}
    return value


@relaxed
@given(storable)
def test_S21_what_was_stored_once_is_stored_the_same_the_second_time(value: object) -> None:
    text = to_json(value)
    assert to_json(from_json(text)) == text
    json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity would be no JSON.


def test_S21_text_is_exact_whatever_is_in_it() -> None:
    for value in ("", "a\0b", "é", "e\u0301", "\U0001f5fa", '"\\/', "\u2028"):
        assert there_and_back(value) == value


def test_S12_numbers_keep_every_bit() -> None:
    for value in (2**64 - 1, -(2**63), 0.1, 5e-324, 1.7976931348623157e308, -0.0, 1e16):
        back = there_and_back([value])[0]
        assert repr(back) == repr(value)


def test_S12_from_json_takes_text_and_bytes_and_refuses_what_is_not_json() -> None:
    assert from_json('{"a": [1, null]}') == from_json(b'{"a": [1, null]}') == {"a": [1, None]}
    for text in ("", "{", "NaN", "{'a': 1}", b"\xff"):
        with pytest.raises(ValueError):
            from_json(text)


def test_S21_the_value_given_is_not_changed() -> None:
    inner = {1: Colour.RED, "when": (date(2024, 1, 1),)}
    value = {"a": [inner, inner]}
    assert to_json(value) == '{"a":[{"1":"red","when":["2024-01-01"]},{"1":"red","when":["2024-01-01"]}]}'
    assert value == {"a": [{1: Colour.RED, "when": (date(2024, 1, 1),)}] * 2}


# What is converted, rule by rule


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan"), np.float32("inf"), Decimal("NaN")])
def test_S21_nan_and_infinities_become_null(value: object) -> None:
    assert to_json({"mean": value, "all": [value]}) == '{"mean":null,"all":[null]}'


PLUS_2 = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (date(2024, 2, 29), "2024-02-29"),
        (date(1, 1, 1), "0001-01-01"),
        (time(1, 2, 3), "01:02:03"),
        (time(1, 2, 3, 4, tzinfo=UTC), "01:02:03.000004+00:00"),
        (datetime(2024, 2, 29, 12), "2024-02-29T12:00:00"),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), "2024-02-29T12:00:00+00:00"),
        (datetime(2024, 2, 29, 12, 0, 0, 5, tzinfo=PLUS_2), "2024-02-29T12:00:00.000005+02:00"),
        (datetime(1900, 1, 1, tzinfo=timezone(timedelta(seconds=1172))), "1900-01-01T00:00:00+00:19:32"),
        (datetime(2024, 7, 1, tzinfo=ZoneInfo("UTC")), "2024-07-01T00:00:00+00:00"),
        (pd.Timestamp("2024-02-29T12:00:00.000000001"), "2024-02-29T12:00:00.000000001"),
        (Path("a") / "b.tif", "a/b.tif"),
        (PurePosixPath("/a b/é.tif"), "/a b/é.tif"),
        (PureWindowsPath("C:\\a"), "C:\\a"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (type("SubUUID", (UUID,), {})(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (Decimal("1E+30"), "1E+30"),
        (np.str_("band"), "band"),
        (type("SubText", (str,), {"__str__": lambda self: "a lie"})("truth"), "truth"),
        (np.datetime64("2024-02-29"), "2024-02-29"),
        (np.datetime64("2024-02-29T12:00", "ns"), "2024-02-29T12:00:00.000000000"),
        (np.array(np.datetime64("2024-02")), "2024-02"),
    ],
)
def test_S21_what_becomes_text(value: object, text: str) -> None:
    assert there_and_back({"key": value}) == {"key": text}
    assert there_and_back(value) == text


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (timedelta(days=1, microseconds=500_000), 86400.5),
        (timedelta(days=-1), -86400.0),
        (pd.Timedelta("1min"), 60.0),
        (np.timedelta64(90, "s"), 90.0),
        (np.timedelta64(1_500_000_000, "ns"), 1.5),
        (np.int64(-5), -5),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float64(1.5), 1.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.array(7), 7),
        (np.array(7.5), 7.5),
        (np.ma.array(7), 7),
        (np.bool_(True), True),
        (np.array(False), False),
        (Level.LOW, 1),
        (Access.READ | Access.WRITE, 3),
        (type("SubInt", (int,), {"__int__": lambda self: 99})(3), 3),
        (type("SubFloat", (float,), {"__float__": lambda self: 99.0})(3.5), 3.5),
    ],
)
def test_S21_what_becomes_a_number(value: object, number: float) -> None:
    back = there_and_back([value])[0]
    assert back == number
    assert type(back) is type(number)


@pytest.mark.parametrize(
    "value",
    [
        Colour.NOTHING,
        pd.NaT,
        pd.NA,
        np.datetime64("NaT"),
        np.timedelta64("NaT"),
        np.array(np.datetime64("NaT")),
        np.ma.masked,
        np.ma.array(3, mask=True),
        np.ma.array([1, 2], mask=[True, True]).min(),
    ],
)
def test_S21_missing_values_become_null(value: object) -> None:
    assert to_json([value, {"a": value}]) == '[null,{"a":null}]'


def test_S21_an_enum_becomes_its_value_by_the_rules_for_that() -> None:
    assert to_json([Colour.RED, Colour.DAY, Band.NIR]) == '["red","2024-02-29","nir"]'


def test_S21_tuples_and_named_tuples_become_arrays() -> None:
    assert to_json(((), (1, (2,)), Bounds(1.5, Path("p")))) == '[[],[1,[2]],[1.5,"p"]]'  # type: ignore[arg-type]


def test_S21_a_dataclass_becomes_an_object_of_all_its_fields_those_with_underscores_too() -> None:
    assert there_and_back(Tile("t", 7, Bounds(1.0, 2.0))) == {"name": "t", "_checksum": 7, "bounds": [1.0, 2.0]}
    assert there_and_back(Node(Node(np.int8(1)))) == {"parent": {"parent": 1}}


def test_S21_a_pydantic_model_becomes_an_object_by_the_same_rules_as_everything_else() -> None:
    window = Window(day=date(2024, 1, 2), path=Path("a/b"), tags={"z", "a"}, extra=[np.float32(0.5), Shape({"a": 1})])
    expected = {"day": "2024-01-02", "path": "a/b", "tags": ["a", "z"], "extra": [0.5, {"a": 1}]}
    assert there_and_back({"w": window}) == {"w": expected}
    assert Window.model_validate_json(to_json(window)).day == window.day
    assert there_and_back(RootModel[list[date]]([date(2024, 1, 2)])) == ["2024-01-02"]
    assert there_and_back({"href": AnyUrl("https://example.org/a?b=1")}) == {"href": "https://example.org/a?b=1"}


def test_S21_a_secret_is_neither_stored_nor_shown() -> None:
    message = refusal({"token": SecretStr("hunter2")})
    assert message.startswith("result['token'] is of type pydantic.types.SecretStr")
    assert "hunter2" not in message


def test_S21_what_has_a_geo_interface_becomes_its_geojson() -> None:
    point = Shape({"type": "Point", "coordinates": (np.float64(1.0), math.nan)})
    feature = Shape({"type": "Feature", "geometry": point, "properties": {"day": date(2024, 1, 1)}, "bbox": ()})
    assert there_and_back({"f": feature}) == {
        "f": {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [1.0, None]},
            "properties": {"day": "2024-01-01"},
            "bbox": [],
        }
    }
    on_the_instance = type("Plain", (), {})()
    on_the_instance.__geo_interface__ = {"type": "Point", "coordinates": [1, 2]}
    assert there_and_back(on_the_instance) == {"type": "Point", "coordinates": [1, 2]}


def test_S21_a_dataclass_with_a_geo_interface_keeps_all_its_fields() -> None:
    @dataclasses.dataclass
    class Footprint:
        name: str
        geometry: Shape

        @property
        def __geo_interface__(self) -> object:
            return self.geometry.__geo_interface__

    assert there_and_back(Footprint("a", Shape({"type": "Point"}))) == {"name": "a", "geometry": {"type": "Point"}}


def test_S21_a_structured_scalar_keeps_its_field_names() -> None:
    rows = np.array([(1, 2.5, "2024-01-01")], dtype=[("id", "i4"), ("area", "f8"), ("day", "M8[D]")])
    assert there_and_back(rows[0]) == {"id": 1, "area": 2.5, "day": "2024-01-01"}


def test_S21_dict_and_list_subclasses_become_what_they_show() -> None:
    counts = collections.Counter("aab")
    ordered = collections.OrderedDict(b=1, a=2)
    default = collections.defaultdict(list, {"k": [1]})
    made = type("Coordinates", (list,), {})([1, 2])
    assert to_json([counts, ordered, default, made, DictWithView(hidden=1)]) == (
        '[{"a":2,"b":1},{"b":1,"a":2},{"k":[1]},[1,2],{"shown":1}]'
    )


# Sets


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (set(), []),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({10, 9, 1.5}), [1.5, 9, 10]),
        ({"b", "a"}, ["a", "b"]),
        ({(1, 10), (1, 2)}, [[1, 2], [1, 10]]),
        ({Decimal(10), Decimal(9)}, ["9", "10"]),
        ({date(2024, 1, 2), date(2024, 1, 1)}, ["2024-01-01", "2024-01-02"]),
        ({np.int64(10), np.int64(9)}, [9, 10]),
        ({1, "a", None}, ["a", 1, None]),
        ({frozenset({2}), frozenset({1, 3})}, [[1, 3], [2]]),
        ({Colour.RED, Colour.DAY}, ["2024-02-29", "red"]),
        (type("SubSet", (set,), {})({2, 1}), [1, 2]),
    ],
)
def test_S21_sets_become_arrays_in_order(value: object, items: list[object]) -> None:
    assert there_and_back({"s": value}) == {"s": items}


@relaxed
@given(st.lists(scalars.filter(lambda value: value is not np.ma.masked), max_size=6))
def test_S21_the_order_of_a_set_does_not_depend_on_how_it_was_made(items: list[Any]) -> None:
    members = list(set(items))
    turned_round = members[::-1]
    assert to_json(set(members)) == to_json(set(turned_round))


def test_S21_the_order_of_a_set_is_the_same_in_every_process() -> None:
    code = "from geoflow.values import to_json; print(to_json([{'x', 'yy', 'zzz'}, {'a', 1}, {frozenset('ab'), 'q'}]))"
    texts = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert texts == {'[["x","yy","zzz"],["a",1],["q",["a","b"]]]\n'}


# Keys


@pytest.mark.parametrize(
    "key",
    ["", "a", 1, -5, 2**70, 1.5, 1e16, 1e-7, -0.0, True, False, None],
)
def test_S21_keys_become_the_text_that_json_makes_of_them(key: Any) -> None:
    assert there_and_back({"outer": {key: 1}}) == {"outer": json.loads(json.dumps({key: 1}))}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (np.int64(5), "5"),
        (np.float64(1.5), "1.5"),
        (np.float32(0.5), "0.5"),
        (np.bool_(True), "true"),
        (np.str_("a"), "a"),
        (np.datetime64("2024-01-01"), "2024-01-01"),
        (date(2024, 1, 1), "2024-01-01"),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00+00:00"),
        (time(1, 2), "01:02:00"),
        (pd.Timestamp("2024-01-01"), "2024-01-01T00:00:00"),
        (Band.NIR, "nir"),
        (Level.LOW, "1"),
        (Colour.RED, "red"),
        (Colour.DAY, "2024-02-29"),
        (Colour.NOTHING, "null"),
    ],
)
def test_S21_keys_of_other_kinds_become_the_text_of_their_value(key: Any, text: str) -> None:
    assert there_and_back({key: 1}) == {text: 1}


@pytest.mark.parametrize(
    "key",
    [
        *((1, 2), frozenset({1}), b"a", UUID(int=1), Path("a"), Decimal(1), 1j, int, timedelta(1), 10**5000),
        *(math.nan, math.inf, np.float64("nan"), np.complex64(1), pd.NaT, np.datetime64("NaT")),
        *(Colour.ALIEN, EvilLevel.A, EvilRepr()),
    ],
    ids=lambda key: type(key).__name__,
)
def test_S21_other_keys_are_refused_with_the_path_to_their_dict(key: Any) -> None:
    message = refusal({"stats": [{}, {key: 1}]})
    assert message.startswith("result['stats'][1] has ")
    assert message.endswith("use str keys")
    assert len(message) < 300


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({1: "a", "1": "b"}, "'1', 1 and '1'"),
        ({"1": "a", 1: "b"}, "'1', '1' and 1"),
        ({None: 1, "null": 2}, "'null', None and 'null'"),
        ({True: 1, "true": 2}, "'true', True and 'true'"),
        ({1.5: 1, "1.5": 2}, "'1.5', 1.5 and '1.5'"),
        ({date(2024, 1, 1): 1, "2024-01-01": 2}, "'2024-01-01', datetime.date(2024, 1, 1) and '2024-01-01'"),
    ],
)
def test_S21_two_keys_that_become_equal_are_refused_since_one_value_would_be_lost(value: object, text: str) -> None:
    message = refusal({"by_id": value})
    assert message == f"result['by_id'] has two keys that both become {text}: rename one of them"


@relaxed
@given(st.dictionaries(st.integers() | st.floats() | st.booleans() | st.none() | st.text(), st.integers(0, 9)))
def test_S21_no_value_of_a_dict_is_ever_lost(value: dict[Any, int]) -> None:
    texts = {json.dumps({key: 0}) for key in value}
    if len(texts) < len(value) or any(isinstance(key, float) and not math.isfinite(key) for key in value):
        assert refusal(value).startswith("result has ")
    else:
        assert list(there_and_back(value).values()) == list(value.values())


# What is refused


GENERATOR = (n for n in range(3))


@pytest.mark.parametrize(
    ("value", "kind", "remedy"),
    [
        (np.zeros(3), "numpy.ndarray", "write it to a file and return the path"),
        (np.zeros(1), "numpy.ndarray", "write it to a file and return the path"),
        (np.zeros((1, 1)), "numpy.ndarray", "write it to a file and return the path"),
        (np.ma.array([1]), "numpy.ma.MaskedArray", "write it to a file and return the path"),
        (pd.DataFrame({"a": [1]}), "pandas.DataFrame", "write it to a file and return the path"),
        (pd.Series([1]), "pandas.Series", "write it to a file and return the path"),
        (pd.Index([1]), "pandas.Index", "write it to a file and return the path"),
        (threading.Lock(), "_thread.lock", "write it to a file and return the path"),
        (object(), "object", "write it to a file and return the path"),
        (Fraction(1, 2), "fractions.Fraction", "write it to a file and return the path"),
        (b"a", "bytes", "decode it to text, or write it to a file and return the path"),
        (bytearray(b"a"), "bytearray", "decode it to text, or write it to a file and return the path"),
        (memoryview(b"a"), "memoryview", "decode it to text, or write it to a file and return the path"),
        (np.array(b"a"), "bytes", "decode it to text, or write it to a file and return the path"),
        (1j, "complex", "return its real and its imaginary part"),
        (ValueError("x"), "ValueError", "raise it, or return its text"),
        (GENERATOR, "generator", "make it a list"),
        ({}.keys(), "dict_keys", "make it a list"),
        (range(3), "range", "make it a list"),
        (collections.deque([1]), "collections.deque", "make it a list"),
        (map(str, []), "map", "make it a list"),
        (MappingProxyType({"a": 1}), "mappingproxy", "make it a dict"),
        (len, "builtin_function_or_method", "return its name"),
        (lambda: 1, "function", "return its name"),
        (Tile, "type", "return its name"),
        (orjson.Fragment(b"not json"), "orjson.Fragment", "write it to a file and return the path"),
    ],
)
def test_S21_anything_else_is_refused_naming_path_type_and_remedy(value: object, kind: str, remedy: str) -> None:
    message = refusal({"stats": {"ds": [0, 1, 2, value]}})
    assert message == f"result['stats']['ds'][3] is of type {kind}, which has no JSON form: {remedy}"


def test_S21_a_file_that_is_open_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "a.txt").open("w") as file:
        assert refusal({"out": file}).startswith("result['out'] is of type _io.TextIOWrapper, which has no JSON form")


def test_S21_classes_are_refused_though_their_instances_can_be_stored() -> None:
    for kind in (Window, Shape, Tile, Band, np.float64, Path):
        assert refusal([kind]).startswith("result[0] is of type ")


def test_S21_coroutines_and_futures_are_refused_with_the_advice_to_wait() -> None:
    async def handler() -> dict[str, bool]:
        return {"success": True}

    coroutine = handler()
    loop = asyncio.new_event_loop()
    try:
        assert refusal({"a": coroutine}).endswith("wait for it, and return what it gives")
        assert refusal({"a": loop.create_future()}).endswith("wait for it, and return what it gives")
    finally:
        coroutine.close()
        loop.close()
    future = type("Future", (), {"add_done_callback": lambda self, call: None})()
    assert refusal({"a": future}).endswith("wait for it, and return what it gives")


def test_S21_the_path_starts_with_the_name_of_what_is_stored() -> None:
    assert refusal(b"", where="parameters").startswith("parameters is of type bytes")
    assert refusal({"a": b""}, where="parameters").startswith("parameters['a'] is of type bytes")


def test_S21_the_path_leads_through_models_dataclasses_tuples_and_geometries() -> None:
    window = Window(day=date(2024, 1, 1), path=Path("p"), extra=(Node(Shape({"type": "Point", "crs": object()})),))
    assert refusal({"w": window}).startswith("result['w']['extra'][0]['parent']['crs'] is of type object")


def test_S21_the_path_shows_keys_as_they_are_stored() -> None:
    assert refusal({2024: {date(2024, 1, 1): object()}}).startswith("result['2024']['2024-01-01'] is ")


def test_S21_an_item_of_a_set_is_named_by_its_set() -> None:
    assert refusal({"tags": {"a", (1, b"")}}).startswith("result['tags'][*][1] is of type bytes")
    assert refusal({"tags": {1, 1j}}).startswith("result['tags'][*] is of type complex")


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**5000], ids=["large", "small", "5000 digits"])
def test_S21_integers_beyond_64_bits_are_refused_with_the_advice_to_use_text(number: int) -> None:
    message = refusal({"ids": [1, number]})
    assert message == (
        f"result['ids'][1] is an integer of {number.bit_length()} bits, and 64 can be stored: return it as text"
    )
    assert refusal({"id": type("SubInt", (int,), {})(number)}).startswith("result['id'] is an integer of ")


def test_S21_lone_surrogates_are_refused_in_values_and_in_keys() -> None:
    assert refusal({"names": ["ok", "caf\udce9.tif"]}).startswith(
        r"result['names'][1] is text with a lone surrogate, 'caf\udce9.tif', which is not Unicode"
    )
    assert refusal({"a": {"caf\udce9": 1}}).startswith(r"result['a'] has a key with a lone surrogate, 'caf\udce9'")
    assert refusal({"a": {Path("caf\udce9"): 1}}).endswith("use str keys")
    assert refusal({"p": Path("caf\udce9")}).startswith("result['p'] is text with a lone surrogate")
    assert refusal({"caf\udce9": object()}).startswith(r"result has a key with a lone surrogate, 'caf\udce9'")


def test_S21_what_contains_itself_is_refused_where_it_does() -> None:
    by_list: list[object] = []
    by_list.append({"again": by_list})
    by_dict: dict[str, object] = {}
    by_dict["me"] = (by_dict, by_dict)
    by_field = Node()
    by_field.parent = [by_field]
    by_geo = Shape(None)
    by_geo.geo = {"geometry": by_geo}
    assert refusal(by_list).startswith("result[0]['again'] contains itself")
    assert refusal(by_dict).startswith("result['me'][0] contains itself")
    assert refusal(by_field).startswith("result['parent'][0] contains itself")
    assert refusal(by_geo).startswith("result['geometry'] contains itself")


def test_S21_what_is_shared_but_not_circular_is_stored_each_time() -> None:
    shared = {"day": date(2024, 1, 1)}
    assert to_json([shared, shared, (shared,)]) == (
        '[{"day":"2024-01-01"},{"day":"2024-01-01"},[{"day":"2024-01-01"}]]'
    )


WRAPS: list[Any] = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"a": inner},
    lambda inner: {1: inner},
    Node,
    lambda inner: Shape({"a": inner}),
    lambda inner: frozenset({inner}),
]


def nested(levels: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [*WRAPS[:6]])
def test_S21_two_hundred_levels_are_stored(wrap: Any) -> None:
    assert MAX_DEPTH == 200
    assert to_json(nested(MAX_DEPTH, wrap)).count("1") >= 1


@pytest.mark.parametrize("wrap", WRAPS)
def test_S21_one_level_more_is_refused_with_a_path_that_can_be_read(wrap: Any) -> None:
    message = refusal(nested(MAX_DEPTH + 1, wrap))
    assert message.endswith(" is nested deeper than 200 levels: flatten it")
    assert len(message) < 200


@pytest.mark.parametrize("wrap", [*WRAPS[:4]])
def test_S21_a_hundred_thousand_levels_are_refused_and_harm_nothing(wrap: Any) -> None:
    value = nested(100_000, wrap)
    assert "nested deeper than 200 levels" in refusal(value)
    while isinstance(value, dict | list | tuple):  # Taken apart from outside: the collector need not recurse.
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]
    assert to_json(value) == "1"


def test_S21_a_caller_that_is_itself_deep_gets_a_refusal_and_no_recursion_error() -> None:
    def descend(levels: int) -> str:
        return descend(levels - 1) if levels else refusal(nested(150, WRAPS[3]))

    depth = len(list(_frames()))
    assert "nested too deeply to be stored from here" in descend(sys.getrecursionlimit() - depth - 60)


def _frames() -> Iterator[object]:
    frame = sys._getframe()
    while frame:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def test_S21_code_of_the_value_that_raises_is_refused_with_path_and_error() -> None:
    assert refusal({"a": [Evil()]}) == (
        "result['a'][0] is of type tests.test_values.Evil, and turning it into JSON failed with "
        "OSError: the file is gone: return plain values instead"
    ).replace("tests.test_values", __name__)
    assert r"RuntimeError: no\ud800" in refusal({"a": EvilModel()})
    assert "failed with ValueError: no items today" in refusal({"a": EvilDict(a=1)})
    assert "failed with EvilText: (its text cannot be shown)" in refusal({"a": Unspeakable()})
    assert "failed with RuntimeError: no value" in refusal({"a": EvilLevel.A})
    assert "failed with AttributeError" in refusal({"a": object.__new__(Node)})
    assert "failed with AttributeError" in refusal({"a": UUID.__new__(UUID)})


def test_S21_the_error_behind_a_refusal_is_kept_as_its_cause() -> None:
    with pytest.raises(UnstorableValue) as caught:
        to_json({"a": Evil()})
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("geo", [None, "{}", [1], 5])
def test_S21_a_geo_interface_that_is_no_dict_is_refused(geo: object) -> None:
    message = refusal({"g": Shape(geo)})
    assert "whose __geo_interface__ is of type" in message
    assert "write it to a file and return the path" in message


def test_S21_what_keeps_turning_into_something_else_is_refused() -> None:
    class Endless:
        def model_dump(self) -> object:
            return Endless()

    assert "keeps turning into something else" in refusal({"a": Endless()})


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit, MemoryError])
def test_S21_an_interrupt_or_a_lack_of_memory_is_no_fault_of_the_value(exception: type[BaseException]) -> None:
    class Slow:
        def model_dump(self) -> object:
            raise exception

    class SlowDay(date):
        def isoformat(self) -> str:
            raise exception

    for value in (Slow(), SlowDay(2024, 1, 1), {SlowDay(2024, 1, 1): 1}):
        with pytest.raises(exception):
            to_json({"a": value})


def test_S21_an_object_that_answers_every_question_is_not_taken_for_a_model() -> None:
    class Mock:
        def __getattr__(self, name: str) -> Any:
            return Mock()

    assert refusal({"a": Mock()}).endswith("which has no JSON form: write it to a file and return the path")


def test_S21_an_object_that_lies_about_its_class_is_taken_for_what_it_is() -> None:
    class Liar:
        @property  # type: ignore[misc]
        def __class__(self) -> Any:
            return dict

    assert "which has no JSON form" in refusal({"a": Liar()})


def test_S21_an_array_of_one_item_does_not_pass_for_a_number() -> None:
    assert "numpy.ndarray" in refusal({"mean": np.array([1.5])})
    assert "pandas.Series" in refusal({"mean": pd.Series([1.5])})
    assert there_and_back({"mean": np.array([1.5]).mean()}) == {"mean": 1.5}


def test_S21_long_keys_are_shortened_in_messages() -> None:
    assert len(refusal({"k" * 10_000: object()})) < 250


def test_S21_a_refusal_is_a_type_error_so_that_it_is_permanent() -> None:
    assert issubclass(UnstorableValue, TypeError)


def test_S21_a_value_that_another_thread_changes_is_stored_or_refused_but_breaks_nothing() -> None:
    value: dict[Any, Any] = {"result": {str(n): [n] for n in range(2000)}}
    stop = threading.Event()

    def disturb() -> None:
        n = 0
        while not stop.is_set():
            value["result"].pop(str(n % 2000), None)
            value["result"][f"new{n % 50}"] = [n]
            n += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(30):
            assert isinstance(there_and_back(value), dict)
    finally:
        stop.set()
        thread.join()


def test_S21_neither_numpy_nor_pandas_nor_pydantic_is_loaded_to_store_a_value() -> None:
    code = (
        "import sys; before = set(sys.modules); from geoflow import values;"
        "values.to_json({1: {2.5, 'a'}});"
        "assert not {'numpy', 'pandas'} & set(sys.modules), sys.modules;"
        "print('values' in dir())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
