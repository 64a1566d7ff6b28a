"""Types of other libraries that cross as JSON: found by their names, so that only who uses one imports its library."""

from __future__ import annotations

import dataclasses
import functools
import sys
import types
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from geoflow.errors import DefinitionError, GeoflowWarning, UnstorableValue
from geoflow.jobtypes.typed.annotations import BY_NAME, OWN_WAY, class_name, fields_of, is_model, needed
from geoflow.support.jsonable import Forms
from geoflow.usercode.packing import unshippable


class Crossing(NamedTuple):
    """How values of one class go to JSON, and come back from it.

    What is known here is *told* the class that an annotation names as well; a user's function is not.
    """

    to_json: Callable[[Any], Any]
    from_json: Callable[..., Any]
    told: bool = False


# By the names of classes, as ``module.name``. Those of subclasses cross alike.
Crossings = dict[str, Crossing]


def register_type(kind: type | str, to_json: Callable[[Any], object], from_json: Callable[[Any], Any]) -> None:
    """Let values of a class cross between typed stages, and as parameters of typed jobs.

    What *to_json* makes of a value is stored: plain values, or what crosses by itself. *from_json* makes the value
    again of what was stored, where a stage, a field of a dataclass or a parameter is annotated with *kind*.

    Call it before the stages that use the class. It holds for those that are defined after it, and goes with them to
    the workers; a second call for the same class replaces the first. *kind* may be the class's name with its module,
    ``"shapely.Polygon"``, so that nothing is imported here.

    Raises:
        DefinitionError: *kind* is no class, or a function cannot go to a worker.
    """
    if not isinstance(kind, type) and not (isinstance(kind, str) and "." in kind):
        raise DefinitionError(f'gf.register_type takes a class, or "module.Class", not {kind!r}.')
    for name, function in (("to_json", to_json), ("from_json", from_json)):
        problem = "is no function." if not callable(function) else unshippable(function)
        if problem:
            raise DefinitionError(f"{name} of gf.register_type({_name(kind)}) {problem}")
    OWN_WAY.add(_name(kind))
    _added[_name(kind)] = Crossing(to_json, from_json)


def cross_by_default(crossing: Crossing, *names: str) -> None:
    """Let values of the classes with these *names* cross so, where nobody has said otherwise."""
    OWN_WAY.update(names)
    _by_default.update(dict.fromkeys(names, crossing))


def _name(kind: type | str) -> str:
    return kind if isinstance(kind, str) else class_name(kind)


def crossing_of(kind: Any, added: Mapping[str, Crossing]) -> Crossing | None:
    """How *kind* crosses, if it does so by *added* or by what is known here; None for all other classes."""
    if not isinstance(kind, type):
        return None
    names = [name for base in kind.__mro__ for name in added if _is_called(base, name)] if added else []
    return added[names[0]] if names else _known(kind)


def _known(kind: type) -> Crossing | None:
    return next((_KNOWN[name] for base in kind.__mro__ if (name := _name(base)) in _KNOWN), None)


def forms_with(added: Mapping[str, Crossing]) -> Forms:
    """How `to_json` is to write what crosses by *added*, or by what is known here."""
    return functools.partial(_form, added) if added else _known_form


def _form(added: Mapping[str, Crossing], kind: type) -> Callable[[Any], Any] | None:
    crossing = crossing_of(kind, added)
    return crossing and crossing.to_json


@functools.lru_cache(256)  # it is asked of each value that is not plain
def _known_form(kind: type) -> Callable[[Any], Any] | None:
    return _form({}, kind)


def _is_called(kind: type, name: str) -> bool:
    """Whether *name* leads to it, also as ``shapely.Polygon`` does, among what is imported."""
    module, _, last = name.rpartition(".")
    return name == _name(kind) or getattr(sys.modules.get(module), last, None) is kind


def used_by(annotations: Iterable[Any]) -> Crossings:
    """What was added for classes that *annotations* name, or holds by default: it goes to workers with them."""
    if not _added and not _by_default:
        return {}
    kinds = {kind for annotation in annotations for kind in _classes(annotation, set())}
    bases = {base for kind in kinds for base in kind.__mro__}
    used = {name: how for name, how in _added.items() if any(_is_called(base, name) for base in bases)}
    left = [kind for kind in kinds if crossing_of(kind, used) is None]
    return used | {
        name: _by_default[name] for kind in left for base in kind.__mro__ if (name := _name(base)) in _by_default
    }


def is_foreign(annotation: Any, added: Mapping[str, Crossing]) -> bool:
    """Whether something in it crosses as what is known here."""
    return any(crossing_of(kind, added) for kind in _classes(annotation, set()))


def _classes(annotation: Any, seen: set[Any]) -> Iterator[type]:
    """The classes that it is made of: those in its brackets, and those of fields."""
    for part in get_args(annotation):
        yield from _classes(part, seen)
    if not isinstance(annotation, type) or get_origin(annotation) or annotation in seen:
        return
    seen.add(annotation)
    yield annotation
    if is_model(annotation):
        for hint in _fields(annotation).values():
            yield from _classes(hint, seen)


def _fields(kind: Any) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return fields_of(kind) or {}
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # a class of a notebook's function; pydantic says what it does not find
        return {}
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.init}


def readable(annotation: Any, added: Mapping[str, Crossing]) -> Any:
    """*annotation* as pydantic can read it: with marks where a class crosses as what is known here."""
    if not is_foreign(annotation, added):
        return annotation
    if isinstance(annotation, type) and not get_origin(annotation):
        crossing = crossing_of(annotation, added)
        return Annotated[annotation, _Foreign(crossing) if crossing else _WithForeign(added)]
    kind, args = get_origin(annotation), [readable(arg, added) for arg in get_args(annotation)]
    if kind is Annotated:
        return Annotated[(args[0], *annotation.__metadata__)]
    return Union[tuple(args)] if kind in (Union, types.UnionType) else kind[tuple(args)]  # noqa: UP007 - how many?


class _Foreign(NamedTuple):
    """The mark of a class that crosses."""

    crossing: Crossing

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(functools.partial(_made, self.crossing, source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {}  # its library's own business


def _made(crossing: Crossing, kind: Any, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    try:
        made = crossing.from_json(value, kind) if crossing.told else crossing.from_json(value)
    except Exception as exc:  # of any library
        raise ValueError(f"this makes no {kind.__name__}: {type(exc).__name__}: {exc}") from None
    if not isinstance(made, kind):
        raise ValueError(f"this makes a {type(made).__name__}, and no {kind.__name__}")
    return made


class _WithForeign(NamedTuple):
    """The mark of a dataclass or model with fields of such classes."""

    added: Mapping[str, Crossing]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        wanted, fields = needed(source), {}
        for name, hint in _fields(source).items():
            schema = handler.generate_schema(readable(hint, self.added))
            fields[name] = core_schema.typed_dict_field(schema, required=name in wanted)
        given = core_schema.no_info_after_validator_function(
            functools.partial(_from_fields, source), core_schema.typed_dict_schema(fields)
        )
        return core_schema.no_info_wrap_validator_function(functools.partial(_unless_it_is, source), given)


def _unless_it_is(kind: Any, value: Any, make: Callable[[Any], Any]) -> Any:
    return value if isinstance(value, kind) else make(value)


def _from_fields(kind: Any, values: dict[str, Any]) -> Any:
    return kind.model_validate(values, **BY_NAME) if issubclass(kind, BaseModel) else kind(**values)


# Some 100 kB of GeoJSON, of about 40 bytes a point.
MANY_POINTS = 2_500

# What is known without being registered. What would not come back as it was is refused.


def _geometry(value: Any) -> Any:
    shapely, numpy = import_module("shapely"), import_module("numpy")
    try:
        made = value.__geo_interface__
        is_whole = _wkb(_from_geojson(made, type(value))) == _wkb(value)
    except IndexError:  # so it comes to an empty part of many
        is_whole = False
    points = shapely.get_coordinates(value, include_z=value.has_z)
    if not is_whole or numpy.isnan(points).any():  # NaN would be null, and then NaN again only by chance
        raise UnstorableValue(f"is a {value.geom_type} with what GeoJSON would lose: an SRID, M, NaN or an empty part")
    if len(points) > MANY_POINTS:
        warnings.warn(
            f"A {value.geom_type} of {len(points):,} points goes as GeoJSON from stage to stage, and is stored with "
            "each task that takes it: write it to a file, and pass the path and the number of its feature.",
            GeoflowWarning,
            stacklevel=2,
        )
    return made


def _wkb(value: Any) -> Any:
    return import_module("shapely").to_wkb(value, include_srid=True)


def _from_geojson(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise TypeError(f"it is made of GeoJSON, not of {type(value).__name__}")
    return import_module("shapely.geometry").shape(value)


def _rasterio_crs(value: Any) -> str:
    kind, code = type(value), value.to_authority(confidence_threshold=100)
    text = ":".join(code) if code else ""
    if text and kind.from_user_input(text).to_wkt() == value.to_wkt():
        return text
    return _whole(value, value.to_wkt(version="WKT2_2019"))


def _pyproj_crs(value: Any) -> str:
    kind, code = type(value), value.to_authority(min_confidence=100)
    if code and kind.from_user_input(":".join(code)).to_wkt() == value.to_wkt():
        return ":".join(code)
    return _whole(value, value.to_wkt())


def _whole(crs: Any, text: str) -> str:
    if type(crs).from_user_input(text) != crs:
        raise UnstorableValue("is a CRS that its own WKT does not say whole")
    return text


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"it is made of text, not of {type(value).__name__}")
    return value


def _from_text(value: Any, kind: Any) -> Any:
    return kind.from_user_input(_text(value))


def _numbers(*values: Any) -> Any:
    if not all(type(value) in (int, float) for value in values):
        raise TypeError(f"it is made of numbers, not of {values}")
    return values


def _from_window(value: Any, kind: Any) -> Any:
    return kind(*_numbers(*(value[name] for name in ("col_off", "row_off", "width", "height"))))


def _window(value: Any) -> dict[str, Any]:
    return {"col_off": value.col_off, "row_off": value.row_off, "width": value.width, "height": value.height}


_KNOWN: Crossings = {
    "shapely.lib.Geometry": Crossing(_geometry, _from_geojson, told=True),
    "affine.Affine": Crossing(lambda value: [*value][:6], lambda value, kind: kind(*_numbers(*value)), told=True),
    "rasterio.windows.Window": Crossing(_window, _from_window, told=True),
    "rasterio.crs.CRS": Crossing(_rasterio_crs, _from_text, told=True),
    "pyproj.crs.crs.CRS": Crossing(_pyproj_crs, _from_text, told=True),
    "pandas.Timestamp": Crossing(lambda value: value.isoformat(), lambda value, kind: kind(_text(value)), told=True),
}
_added: Crossings = {}
_by_default: Crossings = {}
OWN_WAY.update(_KNOWN)
