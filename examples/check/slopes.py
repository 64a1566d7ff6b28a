"""A clean job type of typed functions."""

from pydantic import BaseModel

import geoflow as gf

EXPECTED = ()


class Params(BaseModel):
    tiles: list[str] = ["n46e007", "n46e008", "n47e007"]
    steps: int = 4


class Slope(BaseModel):
    tile: str
    degrees: float


slopes = gf.JobType("slopes", params=Params, description="The steepest slope over a set of tiles.")


@slopes.stage
def find(p: Params) -> list[str]:
    return sorted(p.tiles)


@slopes.each(find)
def slope(tile: str, p: Params) -> Slope:
    return Slope(tile=tile, degrees=int(tile[1:3]) / p.steps)


@slopes.reduce(slope)
def steepest(found: list[Slope]) -> dict:
    return max(found, key=lambda one: one.degrees).model_dump()
