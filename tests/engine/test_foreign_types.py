"""Types of other libraries that cross as JSON in typed stages: what comes back is what was given, or it is refused."""

from __future__ import annotations

import importlib
import subprocess
import sys
import types
import warnings
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

import geoflow as gf
from geoflow.errors import ContractViolationError, DefinitionError, GeoflowWarning, ParameterError, UnstorableValue
from geoflow.jobtypes.typed import foreign
from geoflow.jobtypes.typed.annotations import fits, items_of
from geoflow.jobtypes.typed.crossing import FromJson, plain


class Degrees:
    """A class of a library that knows nothing of JSON."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]


class Longitude(Degrees):
    pass


def degrees_to_json(value: Degrees) -> dict[str, Any]:
    return {"kind": type(value).__name__, "degrees": value.value}


def degrees_from_json(value: dict[str, Any]) -> Degrees:
    return {"Degrees": Degrees, "Longitude": Longitude}[value["kind"]](value["degrees"])


@dataclass
class Corner:
    east: Longitude
    north: Degrees
    label: str = "corner"


@dataclass
class Start:
    east: Longitude
    north: Degrees


class Box(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    corners: list[Corner]
    turned: Degrees | None = None


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(foreign, "_added", {})
    gf.register_type(Degrees, degrees_to_json, degrees_from_json)


def there_and_back(value: Any, annotation: Any) -> Any:
    taken = FromJson(annotation, "test")
    return taken(plain(value, added=taken.added), "test takes it", "what was returned")


def boxes(session: gf.Session, **options: Any) -> Any:
    job = gf.JobType("boxes", params=Start)

    @job.stage
    def plan(start: Start) -> Box:
        return Box(corners=[Corner(start.east, start.north), Corner(Longitude(2.5), start.north)], turned=Degrees(1.0))

    @job.each(plan, over="corners")
    def east(corner: Corner) -> Longitude:
        return Longitude(corner.east.value * 2)

    @job.reduce(east)
    def widest(found: list[Longitude]) -> Longitude:
        return max(found, key=lambda one: one.value)

    return job.run(session=session, **options)


def test_S61_a_registered_type_crosses_as_parameter_field_item_and_result_between_processes(registered, open_session):
    with open_session(workers=1) as session:
        done = boxes(session, east=Longitude(1.0), north=Degrees(3.0))
    assert done.result() == {"kind": "Longitude", "degrees": 5.0}
    assert done.parameters["east"] == {"kind": "Longitude", "degrees": 1.0}


def test_S61_a_subclass_is_asked_for_by_its_own_name(registered):
    assert there_and_back([Longitude(1.0)], list[Degrees]) == [Longitude(1.0)]
    with pytest.raises(ContractViolationError, match="this makes a Degrees, and no Longitude"):
        there_and_back([Degrees(1.0)], list[Longitude])


def test_S61_what_cannot_be_made_is_told_by_field_with_the_words_of_its_library(registered):
    taken = FromJson(Corner, "test")
    with pytest.raises(
        ContractViolationError, match=r"east: Value error, this makes no Longitude: KeyError: 'degrees'"
    ):
        taken({"east": {"kind": "Longitude"}, "north": {"kind": "Degrees", "degrees": 1}}, "test takes it", "that")


def test_S61_parameters_of_such_a_type_are_refused_by_field(registered, open_session):
    with open_session(workers=0) as session, pytest.raises(ParameterError) as told:
        boxes(session, east=3.0, north=Degrees(3.0))
    assert "- east: Value error, this makes no Longitude: TypeError" in str(told.value)


def test_S61_a_type_that_nobody_registered_is_refused_by_name(monkeypatch):
    monkeypatch.setattr(foreign, "_added", {})
    with pytest.raises(DefinitionError, match=r"Degrees, which cannot be made from JSON.*gf\.register_type"):
        FromJson(Degrees, "test")
    with pytest.raises(UnstorableValue, match=r"result\['at'\] is of type .*Degrees, which has no JSON form"):
        plain({"at": Degrees(1.0)})


def test_S61_what_cannot_go_to_a_worker_is_refused_as_it_is_registered(monkeypatch):
    monkeypatch.setattr(foreign, "_added", {})
    lock = __import__("threading").Lock()
    with pytest.raises(DefinitionError, match=r"from_json of gf\.register_type\(.*Degrees\)"):
        gf.register_type(Degrees, degrees_to_json, lambda value: lock)
    with pytest.raises(DefinitionError, match="takes a class"):
        gf.register_type("Degrees", degrees_to_json, degrees_from_json)
    assert not foreign._added


def test_S61_typed_jobs_import_no_library_whose_types_are_known():
    code = "import geoflow as gf, sys; gf.JobType('x'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"shapely", "rasterio", "pyproj", "affine", "pandas"} & set(loaded)


def test_S61_a_job_type_that_takes_such_types_is_not_exported_and_says_why(tmp_path):
    job = gf.JobType("dated")

    @job.stage
    def plan(params: dict) -> list[pd.Timestamp]:
        return [pd.Timestamp("2024-01-01")]

    @job.each(plan)
    def year(when: pd.Timestamp) -> int:
        return when.year

    with pytest.raises(DefinitionError, match="year takes when: Timestamp, which geoflow alone makes from JSON"):
        gf.export(job, tmp_path / "jobs", prove=False)


@pytest.mark.parametrize("text", ["2024-01-01T00:00:00.123456789", "1999-12-31T23:59:59+02:00", "2024-02-29"])
def test_S61_a_timestamp_keeps_its_nanoseconds_and_offset(text):
    came = there_and_back({"a": pd.Timestamp(text)}, dict[str, pd.Timestamp])["a"]
    assert (came, came.utcoffset()) == (pd.Timestamp(text), pd.Timestamp(text).utcoffset())


def _needs(name: str) -> Any:
    return pytest.importorskip(name, reason=f"pip install 'geoflow[geo]' has {name}")


GEOMETRIES = [
    "POINT (0.1 0.30000000000000004)",
    "POINT Z (1 2 3)",
    "POINT EMPTY",
    "LINEARRING (0 0, 1 0, 1 1, 0 0)",
    "POLYGON ((179 0, 181 0, 181 1, 179 1, 179 0), (179.5 0.2, 180.5 0.2, 180 0.8, 179.5 0.2))",
    "MULTIPOLYGON (((170 0, 180 0, 180 1, 170 0)), ((-180 0, -170 0, -180 1, -180 0)))",
    "MULTIPOLYGON EMPTY",
    "GEOMETRYCOLLECTION (POINT (1 2), LINESTRING (0 0, 1 1))",
    "GEOMETRYCOLLECTION EMPTY",
]


@pytest.mark.parametrize("text", GEOMETRIES)
def test_S61_a_geometry_comes_back_to_the_last_bit(text):
    shapely = _needs("shapely")
    value = shapely.from_wkt(text)
    assert shapely.to_wkb(there_and_back([value], types.GenericAlias(list, type(value)))[0]) == shapely.to_wkb(value)
    assert shapely.to_wkb(there_and_back(value, shapely.Geometry)) == shapely.to_wkb(value)


@given(st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=2, max_size=5))
def test_S61_no_digit_of_a_coordinate_is_lost(points):
    shapely = _needs("shapely")
    value = shapely.LineString(points)
    assert shapely.to_wkb(there_and_back(value, shapely.LineString)) == shapely.to_wkb(value)


@pytest.mark.parametrize("text", ["SRID=4326;POINT (1 2)", "MULTIPOINT ((1 2), EMPTY)", "LINESTRING (0 0, NaN 1)"])
def test_S61_a_geometry_that_geojson_would_change_is_refused(text):
    shapely = _needs("shapely")
    srid, _, wkt = text.rpartition(";")
    value = shapely.from_wkt(wkt)
    value = shapely.set_srid(value, int(srid[5:])) if srid else value
    with pytest.raises(UnstorableValue, match=r"result\['at'\] is a \w+ with what GeoJSON would lose"):
        plain({"at": value})


def test_S61_another_geometry_than_is_annotated_is_refused():
    shapely = _needs("shapely")
    with pytest.raises(ContractViolationError, match="this makes a Point, and no Polygon"):
        there_and_back(shapely.Point(1, 2), shapely.Polygon)


def test_S61_a_geometry_of_100_kB_draws_a_warning_that_says_what_to_pass_instead():
    shapely = _needs("shapely")
    with pytest.warns(GeoflowWarning, match=r"A Polygon of 2,[0-9]+ points .*pass the path"):
        plain(shapely.Point(0, 0).buffer(1, quad_segs=650))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain(shapely.Point(0, 0).buffer(1))


@pytest.mark.parametrize("module", ["rasterio.crs", "pyproj"])
@pytest.mark.parametrize("text", ["EPSG:4326", "EPSG:31985", "OGC:CRS84", "+proj=laea +lat_0=52.5 +lon_0=10 +units=m"])
def test_S61_a_crs_comes_back_as_the_same(module, text):
    kind = (_needs("rasterio") and importlib.import_module(module)).CRS
    value = kind.from_user_input(text)
    stored = plain(value)
    came = there_and_back(value, kind)
    assert came == value
    if text.startswith("EPSG"):
        assert (stored, came.to_wkt()) == (text, value.to_wkt())


@pytest.mark.parametrize("module", ["rasterio.crs", "pyproj"])
def test_S61_a_crs_that_is_not_known_is_told_in_its_librarys_words(module):
    kind = (_needs("rasterio") and importlib.import_module(module)).CRS
    with pytest.raises(ContractViolationError, match=r"this makes no CRS: CRSError: .*999999"):
        FromJson(kind, "test")("EPSG:999999", "test takes it", "what was returned")


def test_S61_windows_transforms_and_bounds_come_back_as_themselves():
    windows, affine, coords = _needs("rasterio.windows"), _needs("affine"), _needs("rasterio.coords")
    for value in (
        windows.Window(1, 2, 512, 256),
        windows.Window(0.5, 2.25, 3.1, 4),
        affine.Affine(0.1, 0.2, 3, 0.4, -0.5, 6),
        coords.BoundingBox(170.0, -10.5, -170.0, 10.0),
    ):
        came = there_and_back((value, value), types.GenericAlias(tuple, (type(value), ...)))
        assert came == (value, value)
        assert type(came[0]) is type(value)


def test_S61_an_open_dataset_is_refused_by_name():
    rasterio = _needs("rasterio")
    with pytest.raises(DefinitionError, match="DatasetReader, which cannot be made from JSON"):
        FromJson(rasterio.io.DatasetReader, "test")


def halved(value: float) -> Degrees:
    return Degrees(value / 2)


def as_it_is(value: float) -> Degrees:
    return Degrees(value)


def number(value: Degrees) -> float:
    return value.value


def test_S61_a_task_that_completed_is_stale_once_its_type_crosses_otherwise(registered, open_session):
    session = open_session(workers=0)

    def define() -> gf.JobType:
        job = gf.JobType("degrees")

        @job.stage
        def plan(params: dict) -> list[Degrees]:
            return [Degrees(4.0)]

        @job.each(plan)
        def take(one: Degrees) -> float:
            return one.value

        return job

    gf.register_type(Degrees, number, as_it_is)
    done = define().run(session=session)
    session.register(define())
    assert done.stale == 0
    gf.register_type(Degrees, number, halved)
    session.register(define())
    assert done.stale == 2
    assert done.rerun(stale=True).wait().frame()["result"].tolist() == [2.0]


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("pandas.Timestamp", 5, "it is made of text, not of int"),
        ("shapely.Polygon", "POINT (0 0)", "it is made of GeoJSON, not of str"),
        ("shapely.Polygon", None, "it is made of GeoJSON, not of NoneType"),
        ("rasterio.crs.CRS", 4326, "it is made of text, not of int"),
        ("affine.Affine", "123456", "it is made of numbers, not of"),
        ("affine.Affine", [1, 2], "TypeError"),
        ("rasterio.windows.Window", {"col_off": 1}, "KeyError: 'row_off'"),
        ("rasterio.windows.Window", {"col_off": "1", "row_off": 1, "width": 1, "height": 1}, "it is made of numbers"),
    ],
)
def test_S61_what_was_stored_as_something_else_makes_no_value(name, given, told):
    module, _, last = name.rpartition(".")
    kind = getattr(_needs(module), last)
    with pytest.raises(ContractViolationError, match=told):
        FromJson(kind, "test")(given, "test takes it", "what was returned")


def test_S61_a_class_that_can_be_iterated_is_no_list_of_items_for_that():
    affine, crs = _needs("affine").Affine, _needs("rasterio.crs").CRS
    assert items_of(affine) is items_of(crs) is None
    assert fits(str, crs)
    assert items_of(types.GenericAlias(list, affine)) is affine
