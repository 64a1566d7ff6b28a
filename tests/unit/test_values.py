"""S12, S21: what becomes JSON, how, and what is refused with which words."""

from __future__ import annotations

import collections
import dataclasses
import enum
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any, NamedTuple
from unittest.mock import Mock
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
from geoflow.support.jsonable import MAX_DEPTH, from_json, infinities_in, stored, to_json

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


class EvilLevel(enum.Enum):
    A = 1

    @property
    def value(self) -> int:
        raise RuntimeError("no value")


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
    | st.sampled_from([np.float32(0.1), np.int8(-3), np.uint64(2**64 - 1), np.bool_(True), np.datetime64("NaT", "ns")])
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
        | st.dictionaries(st.integers(-(2**63), 2**63), inner, max_size=4)
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


@given(st.none() | st.floats() | st.text(max_size=3), st.booleans())
def test_S21_each_infinity_in_a_value_is_found_and_nothing_else(value: Any, is_infinite: bool) -> None:
    whole = {"a": [value], "b": (1.0, {"c": math.inf if is_infinite else None})}
    own = ["result['a'][0]"] if isinstance(value, float) and math.isinf(value) else []
    assert infinities_in(whole, to_json(whole)) == [*own, *(["result['b'][1]['c']"] if is_infinite else [])]


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
        np.datetime64("NaT", "ns"),
        np.timedelta64("NaT", "ns"),
        np.array(np.datetime64("NaT", "ns")),
        np.ma.masked,
        np.ma.array(3, mask=True),
        np.ma.array([1, 2], mask=[True, True]).min(),
    ],
)
def test_S21_missing_values_become_null(value: object) -> None:
    assert to_json([value, {"a": value}]) == '[null,{"a":null}]'


def test_S21_subclasses_of_containers_become_what_they_extend() -> None:
    ordered = collections.OrderedDict(b=1, a=2)
    coordinates = type("Coordinates", (list,), {})([1, 2])
    assert to_json([collections.Counter("aab"), ordered, coordinates]) == '[{"a":2,"b":1},{"b":1,"a":2},[1,2]]'


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


# Sets


@pytest.mark.parametrize(
    ("value", "items"),
    [
        (set(), []),
        ({3, 1, 2}, [1, 2, 3]),
        (frozenset({10, 9, 1.5}), [1.5, 9, 10]),
        ({"b", "a"}, ["a", "b"]),
        ({(1, 10), (1, 2)}, [[1, 2], [1, 10]]),
        ({Decimal(10), Decimal(9)}, ["10", "9"]),
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
    code = (
        "from geoflow.support.jsonable import to_json; "
        "print(to_json([{'x', 'yy', 'zzz'}, {'a', 1}, {frozenset('ab'), 'q'}]))"
    )
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
    ("key", "text"),
    [
        ("", ""),
        (-5, "-5"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        (np.int64(5), "5"),
        (np.bool_(True), "true"),
        (np.str_("a"), "a"),
        (np.datetime64("2024-01-01"), "2024-01-01"),
        (datetime(2024, 1, 1, tzinfo=UTC), "2024-01-01T00:00:00+00:00"),
        (Level.LOW, "1"),
        (Colour.DAY, "2024-02-29"),
        (Path("a/b"), "a/b"),
    ],
)
def test_S21_keys_become_the_text_of_their_value(key: Any, text: str) -> None:
    assert there_and_back({"outer": {key: 1}}) == {"outer": {text: 1}}


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, {None: 1, "null": 2}, {date(2024, 1, 1): 1, "2024-01-01": 2}])
def test_S21_two_keys_that_become_equal_are_refused_since_one_value_would_be_lost(value: dict[Any, int]) -> None:
    assert refusal({"by_id": value}).startswith("result['by_id'] has two keys that both become '")


# What is refused


class Placed:
    """A table of places, as geopandas has them."""

    crs: object = "EPSG:25832"
    iloc = None

    @property
    def __geo_interface__(self) -> dict[str, object]:
        raise AssertionError("it is not made for nothing")

    def to_crs(self) -> None: ...


def test_S21_what_would_lose_its_crs_is_refused_with_a_file_to_write() -> None:
    assert refusal({"tiles": Placed()}) == (
        f"result['tiles'] is of type {__name__}.Placed, whose CRS and columns GeoJSON would lose: write it to a "
        "GeoPackage or GeoParquet file and return the path, or return it as text, numbers, lists or dicts"
    )
    point = {"type": "Point", "coordinates": [1, 2]}
    for crs, geo in ((None, point), ("EPSG:25832", {**point, "crs": {}})):
        assert there_and_back(type("Tile", (Shape,), {"crs": crs})(geo)) == geo
    assert "whose CRS GeoJSON would lose" in refusal(type("Tile", (Shape,), {"crs": "EPSG:25832"})(point))


def test_S21_what_code_is_given_again_may_not_be_infinite() -> None:
    for value in (math.inf, np.float32("-inf"), Decimal("Infinity"), {"a": [-math.inf]}):
        with pytest.raises(UnstorableValue, match=r"^parameters.* is -?inf, which JSON has no number for: give None"):
            stored({"x": value}, "parameters")
    assert stored({"x": math.nan, "y": None}, "parameters") == '{"x":null,"y":null}'


REMEDY = "write it to a file and return the path, or return it as text, numbers, lists or dicts"
SAVED = "write it to a file and return the path, or keep it by gf.save and return the reference"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (np.zeros(3), "numpy.ndarray"),
        (np.zeros(1), "numpy.ndarray"),
        (np.ma.array([1]), "numpy.ma.MaskedArray"),
        (pd.DataFrame({"a": [1]}), "pandas.DataFrame"),
        (pd.Series([1.5]), "pandas.Series"),
        (threading.Lock(), "_thread.lock"),
        (object(), "object"),
        (b"a", "bytes"),
        (np.array(b"a"), "bytes"),
        (1j, "complex"),
        (ValueError("x"), "ValueError"),
        ((n for n in range(3)), "generator"),
        (MappingProxyType({"a": 1}), "mappingproxy"),
        (Band, "enum.EnumType"),
        (np.float64, "type"),
        (Shape, "type"),
        (Shape(None), f"{__name__}.Shape"),
        (Mock(), "unittest.mock.Mock"),
        (orjson.Fragment(b"not json"), "orjson.Fragment"),
    ],
)
def test_S21_anything_else_is_refused_naming_path_type_and_remedy(value: object, kind: str) -> None:
    message = refusal({"stats": {"ds": [0, 1, 2, value]}})
    remedy = SAVED if kind in ("numpy.ndarray", "pandas.DataFrame", "pandas.Series", "bytes") else REMEDY
    assert message == f"result['stats']['ds'][3] is of type {kind}, which has no JSON form: {remedy}"


WINDOW = Window(day=date(2024, 1, 1), path=Path("p"), extra=(Node(Shape({"type": "Point", "crs": b""})),))


@pytest.mark.parametrize(
    ("value", "start"),
    [
        (b"", "parameters is of type bytes"),
        ({"w": WINDOW}, "parameters['w']['extra'][0]['parent']['crs'] is of type bytes"),
        ({2024: {date(2024, 1, 1): b""}}, "parameters['2024']['2024-01-01'] is of type bytes"),
        ({"tags": {"a", (1, b"")}}, "parameters['tags'][*][1] is of type bytes"),
        ({"a": {(1, 2): 3}}, "parameters['a'] has the key (1, 2), which is of type tuple: use str keys"),
        ({"a": {b"a": 3}}, "parameters['a'] has the key b'a', which is of type bytes"),
        ({"ids": [1, 2**64]}, "parameters['ids'][1] is an integer of more than 64 bits: give it as text"),
        ({"ids": [10**5000]}, "parameters['ids'][0] is an integer of more than 64 bits: give it as text"),
        (["caf\udce9.tif"], r"parameters[0] is text with a lone surrogate, 'caf\udce9.tif': repair it"),
        (
            {"caf\udce9": 1},
            r"parameters has the key caf\udce9, which is text with a lone surrogate, 'caf\udce9': repair it",
        ),
        ({"p": Path("caf\udce9")}, "parameters['p'] is text with a lone surrogate"),
    ],
)
def test_S21_a_refusal_begins_with_the_path_to_the_culprit(value: object, start: str) -> None:
    assert refusal(value, where="parameters").startswith(start)


def test_S21_code_of_the_value_that_raises_is_refused_with_path_and_error() -> None:
    assert refusal({"a": [Evil()]}) == (
        f"result['a'][0] is of type {__name__}.Evil, and turning it into JSON failed with "
        "OSError: the file is gone: return plain values instead"
    )
    assert "failed with RuntimeError: no value" in refusal({"a": EvilLevel.A})
    assert "failed with AttributeError" in refusal({"a": object.__new__(Node)})
    assert "failed with AttributeError" in refusal({"a": UUID.__new__(UUID)})


def test_S21_what_is_shared_but_not_circular_is_stored_each_time() -> None:
    shared = {"day": date(2024, 1, 1)}
    assert to_json([shared, (shared,)]) == '[{"day":"2024-01-01"},[{"day":"2024-01-01"}]]'


def test_S21_what_contains_itself_is_refused() -> None:
    by_list: list[object] = []
    by_list.append({"again": by_list})
    by_field = Node()
    by_field.parent = [by_field]
    by_geo = Shape(None)
    by_geo.geo = {"geometry": by_geo}
    for value in (by_list, by_field, by_geo):
        assert refusal(value).endswith(TOO_DEEP)


TOO_DEEP = f" is nested deeper than {MAX_DEPTH} levels, or contains itself: flatten it"
WRAPS: list[Any] = [
    lambda inner: [inner],
    lambda inner: (inner,),
    lambda inner: {"a": inner},
    lambda inner: {1: inner},
    lambda inner: frozenset({inner}),
]


def nested(levels: int, wrap: Any) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", WRAPS)
def test_S21_two_hundred_levels_are_stored_and_one_more_is_refused_with_a_path_that_can_be_read(wrap: Any) -> None:
    assert there_and_back(nested(MAX_DEPTH, wrap))
    message = refusal(nested(MAX_DEPTH + 1, wrap))
    assert message.endswith(TOO_DEEP)
    assert len(message) < 300


@pytest.mark.parametrize("wrap", WRAPS[:4])
def test_S21_a_hundred_thousand_levels_are_refused_and_harm_nothing(wrap: Any) -> None:
    value = nested(100_000, wrap)
    assert refusal(value).endswith(TOO_DEEP)
    while isinstance(value, dict | list | tuple):  # Taken apart from outside: the collector need not recurse.
        value = next(iter(value.values())) if isinstance(value, dict) else value[0]


def test_S21_a_refusal_is_a_type_error_so_that_it_is_permanent() -> None:
    assert issubclass(UnstorableValue, TypeError)


def test_S21_what_a_form_refuses_in_whole_sentences_is_told_without_a_second_remedy() -> None:
    def forms(kind: type) -> Callable[[Any], object] | None:
        def refuse(value: Any) -> object:
            raise UnstorableValue("It needs pyarrow: pip install pyarrow." if value.real else "is nothing")

        return refuse if kind is complex else None

    with pytest.raises(UnstorableValue, match=r"^result\['a'\]: It needs pyarrow: pip install pyarrow\.$"):
        to_json({"a": 1j + 1}, forms=forms)
    with pytest.raises(UnstorableValue, match=r"^result\['a'\] is nothing: write it to a file and return the path"):
        to_json({"a": 0j}, forms=forms)
