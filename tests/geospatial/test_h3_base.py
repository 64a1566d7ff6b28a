"""The H3 grid: as many cells as the formula says, the sphere's area, and the land's as Natural Earth has it."""

from __future__ import annotations

from pathlib import Path

import pytest

import geoflow as gf
from tests.geospatial.conftest import Run, data

pd = pytest.importorskip("pandas")
geopandas = pytest.importorskip("geopandas", reason='no geopandas: pip install "geoflow[vector]"')
pytest.importorskip("h3", reason='no h3: pip install "geoflow[h3]"')
pytest.importorskip("pyarrow", reason='no pyarrow: pip install "geoflow[vector]"')

SPHERE = 510_065_621.724  # km², of the radius that H3 has


@pytest.mark.parametrize(("resolution", "over"), [(2, 88), (3, 218)])
def test_the_whole_grid_has_as_many_cells_as_the_formula_says_and_the_sphere_s_area(
    resolution: int, over: int, run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "cells.parquet"
    made = run("create_h3_base", resolution=resolution, out=str(out)).result()
    assert (made["cells"], made["pentagons"]) == (2 + 120 * 7**resolution, 12)
    assert made["over_antimeridian"] == over
    assert made["area_km2"] == pytest.approx(SPHERE, abs=0.001)
    table = pd.read_parquet(out)
    assert table["cell"].is_unique
    assert table["base"].nunique() == 122


def test_the_cells_on_land_have_the_area_of_the_countries(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "cells.parquet"
    land = data("countries")
    made = run("create_h3_base", resolution=3, out=str(out), land=land).result()
    assert made["cells"] == 11_681
    assert made["area_km2"] == pytest.approx(147_265_204, abs=1)
    geodesic = geopandas.read_file(land)
    earth = geodesic.crs.get_geod()
    area = sum(abs(earth.geometry_area_perimeter(one)[0]) for one in geodesic.geometry) / 1e6
    assert area == pytest.approx(147_362_825, abs=1)
    assert made["area_km2"] == pytest.approx(area, rel=0.0007)


def test_a_resolution_that_h3_does_not_have_is_refused_before_anything_is_stored(
    run: Run, session: gf.Session, tmp_path: Path
) -> None:
    before = len(session.jobs())
    with pytest.raises(ValueError, match="resolution"):
        run("create_h3_base", resolution=16, out=str(tmp_path / "cells.parquet"))
    assert len(session.jobs()) == before
