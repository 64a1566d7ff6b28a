"""Code of every kind, and what it had for fingerprints before: stores have them, so they do not change with geoflow."""

# ruff: noqa
# mypy: ignore-errors

import enum
import functools
import json
import math
import os.path
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, NewType

from pydantic import BaseModel, Field

LIMIT = 10
TABLE = {"a": 1, "b": (2, 3.5), "c": None}
NAMES: list[str] = ["x", "y"]
NAMES += ["z"]
Metres = NewType("Metres", float)
Size = Annotated[int, Field(ge=0)]


def plain(x):
    return x + 1


def documented(x: int, *, y: "int" = 2) -> int:
    """What it does."""
    # how
    return x * y


def with_constant(x):
    return x < LIMIT


def with_table(key):
    return TABLE[key], NAMES


def with_helper(x):
    return plain(x) + helper(x)


def helper(x):
    return math.sqrt(x) + len(json.dumps(x))


def mutual(x):
    return other(x - 1) if x else 0


def other(x):
    return mutual(x - 1) if x else 1


def with_comprehensions(xs):
    return [plain(x) for x in xs], {x: LIMIT for x in xs}, {helper(x) for x in xs}, sum(x for x in xs)


def with_inner(x):
    def inner(y: Metres) -> Metres:
        return plain(y) + x

    class Local:
        limit = LIMIT

    return inner(x), Local


def make(n, names=("a",)):
    def made(x):
        return x + n, names

    return made


held = make(3)
held_otherwise = make(4, ["b"])


def with_nonlocal():
    count = 0

    def step():
        nonlocal count
        count += LIMIT
        return count

    return step


def with_global(x):
    global COUNTED
    COUNTED = x
    return COUNTED


def with_defaults(a, b=LIMIT, *args, c=TABLE, **kwargs):
    return a, b, args, c, kwargs


async def asynchronous(x):
    return [y async for y in x]


def generating(n):
    for index in range(n):
        yield plain(index)


double = lambda x: x * 2
part = functools.partial(with_defaults, 1, c={"k": [1, 2]})


@functools.cache
def cached(x):
    return plain(x)


def around(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@around
def wrapped(x):
    return helper(x)


class Colour(enum.Enum):
    RED = 1
    BLUE = "b"


@dataclass
class Point:
    """A point."""

    x: float
    y: float = 0.0
    names: list[str] = field(default_factory=list)

    def norm(self) -> float:
        return math.hypot(self.x, self.y)

    @property
    def double(self):
        return plain(self.x)

    @staticmethod
    def still(x):
        return helper(x)

    @classmethod
    def origin(cls):
        return cls(0, 0)


class Tile(BaseModel):
    name: str
    size: Size = 3
    point: Point | None = None


class Special(Tile):
    colour: Colour = Colour.RED


def typed(tile: Tile, colours: list[Colour]) -> Special:
    return Special(name=tile.name, colour=colours[0])


def with_class(x):
    return Point(x).norm(), isinstance(x, Tile)


def with_module(path):
    return os.path.join(path, "x"), Path(path).name


def with_texts(x):
    return f"{x!r:>{LIMIT}} and {helper(x)}", "text", b"bytes"


def with_match(x):
    match x:
        case {"a": a, **rest}:
            return a, rest
        case Point(x=0):
            return LIMIT
        case [1, *others] if others:
            return others
    return None


def with_try(x):
    try:
        with open(x) as file:
            return file.read()
    except (OSError, ValueError) as exc:
        raise RuntimeError(LIMIT) from exc
    finally:
        plain(1)


bound = Point(1.0).norm
made_of_text = {}
exec("def no_source(x, y=2):\n    return x + LIMIT + y", globals(), made_of_text)
no_source = made_of_text["no_source"]
values = (1, 2.5, "t", None, {"k": {3, 1, 2}}, Colour.RED, Point(1.0, 2.0), Path("p"), int, list[int], math)

ALL = {
    name: value
    for name, value in dict(globals()).items()
    if not name.startswith("_") and name not in ("annotations", "made_of_text")
}

# As geoflow 0.1 made them; of what differs from one Python to the next (paths, pydantic's and typing's objects), none.
BEFORE = {
    "enum": "f3ebea48a05f",
    "functools": "4c1b18268740",
    "json": "02bd175f3297",
    "math": "58a6d6801ae7",
    "os": "840a8dcfeae9",
    "dataclass": "3dcc0ce87f7f",
    "field": "61b371476014",
    "NewType": "e53164a86e8c",
    "BaseModel": "dd85bfc9bc25",
    "Field": "c9af9f4d13f3",
    "LIMIT": "4a44dc153642",
    "TABLE": "73b18bb5f576",
    "NAMES": "3d6b9adb6f11",
    "Metres": "c3333d842f89",
    "Size": "6d0ff648dbbe",
    "plain": "7522e6862408",
    "documented": "cca055bc7731",
    "with_constant": "f808458a8bbb",
    "with_table": "e6484429a76e",
    "with_helper": "b61ba9cbb00b",
    "helper": "80962f9e5cfe",
    "mutual": "d30a199098b9",
    "other": "7d35fb4406d6",
    "with_comprehensions": "18a9b34ef69a",
    "with_inner": "ba450929237e",
    "make": "3a2ab982a9db",
    "held": "c5741fbd8713",
    "held_otherwise": "06cfc40d1f63",
    "with_nonlocal": "719b3f739ae2",
    "with_global": "1cd9028ca462",
    "with_defaults": "69643f312997",
    "asynchronous": "1f1cf89ca17b",
    "generating": "130d09dd04c8",
    "double": "36b7ad2dadd2",
    "part": "599b0ccbb64d",
    "cached": "92374fba0a5d",
    "around": "3733e902e91b",
    "wrapped": "d399c9da3e28",
    "Colour": "ce9e0461d3e1",
    "Point": "0482d6d6192a",
    "with_match": "fd4ca8eb23ea",
    "with_try": "bd6fd03d4dfa",
    "bound": "7d1812eed2e8",
}
