"""Geospatial libraries: which GDAL, PROJ and GEOS each has brought, and the variables that lead them astray."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping

from geoflow.tools.doctor.diagnosis import Diagnosis, ok, problem, run_python, warning

GEO_VARIABLES = ("PROJ_DATA", "PROJ_LIB", "GDAL_DATA")
# What finds another version's tables does not know the first coordinate system that it is asked for.
GEO_TRIALS = {
    "rasterio": "from rasterio.crs import CRS; CRS.from_epsg(31985)",
    "pyproj": "from pyproj import CRS; CRS.from_epsg(31985)",
}
# In a process of its own: what a wheel links may end it. Each is asked beside those before it, as in a handler.
LIBRARIES = ("rasterio", "pyogrio", "pyproj", "shapely", "osgeo")
VERSIONS = """
import json, sys
told, places = {}, {}
for name in sys.argv[1:]:
    try:
        if name == "rasterio":
            import rasterio
            from rasterio.warp import transform
            told[name] = f"GDAL {rasterio.__gdal_version__}, PROJ {rasterio.__proj_version__}"
            places[name] = [value[0] for value in transform("EPSG:4326", "EPSG:31985", [-40], [-10])]
        elif name == "pyogrio":
            import pyogrio
            told[name] = f"GDAL {pyogrio.__gdal_version_string__}"
        elif name == "pyproj":
            import pyproj
            told[name] = f"PROJ {pyproj.proj_version_str}"
            move = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:31985", always_xy=True)
            places[name] = list(move.transform(-40, -10))
        elif name == "shapely":
            import shapely
            told[name] = f"GEOS {shapely.geos_version_string}"
        elif name == "osgeo":
            from osgeo import gdal
            told[name] = f"GDAL {gdal.__version__}"
    except Exception as exc:
        print(json.dumps([name, f"{type(exc).__name__}: {exc}", None]))
        sys.exit()
print(json.dumps([None, told, places]))
"""
REINSTALL = "pip install --force-reinstall --no-deps {}"
APART = 0.001  # metres: two versions of PROJ agree far better where each reads its own tables


def geo_libraries(names: tuple[str, ...] = LIBRARIES) -> Diagnosis:
    """The versions that the libraries *names* bring, where they are installed, and whether they agree.

    They are asked without what `geo_variables` looks at.
    """
    there = [name for name in names if importlib.util.find_spec(name)]
    if not there:
        return ok("None is installed. pip install 'geoflow[geo]' brings them.")
    own = {name: value for name, value in os.environ.items() if name not in GEO_VARIABLES}
    printed, error = run_python(VERSIONS, *there, environment=own)
    if error:
        return problem(f"{', '.join(there)} cannot be used in one process: {error}", REINSTALL.format(" ".join(there)))
    broken, told, places = json.loads(printed)
    if broken:
        return problem(f"{broken} is installed, and cannot be used: {told}", REINSTALL.format(broken))
    text = "; ".join(f"{name} has {versions}" for name, versions in told.items())
    if len(places) > 1:
        first, *others = places
        for other in others:
            apart = max(abs(mine - its) for mine, its in zip(places[first], places[other], strict=True))
            if not apart <= APART:
                told = f"{text}. {first} and {other} place one point {apart:g} m apart."
                return problem(told, "Install both anew: pip install --force-reinstall --no-deps rasterio pyproj")
    if len(told) > 1:
        text += ". Each has its own copies: give paths, WKT and WKB from one to another, never an open dataset"
    if importlib.util.find_spec("geopandas") and not importlib.util.find_spec("pyarrow"):
        told = f"{text}. pyarrow is missing: geopandas cannot read or write Parquet, and gf.save keeps no frame."
        return warning(told, "pip install pyarrow")
    return ok(f"{text}.")


def geo_variables(environment: Mapping[str, str]) -> Diagnosis:
    """Variables that lead libraries to tables of another version; whether those installed here bear that is tried."""
    paths = {variable: environment[variable] for variable in GEO_VARIABLES if environment.get(variable)}
    if not paths:
        return ok(f"{', '.join(GEO_VARIABLES)} are not set: each library uses its own tables.")
    shown = ", ".join(f"{variable}={path}" for variable, path in paths.items())
    remedy = f"unset {' '.join(paths)}   # before Python starts: workers are given what the session has"
    if gone := [variable for variable, path in paths.items() if not os.path.isdir(path)]:
        return problem(f"{shown}: {' and '.join(gone)} leads nowhere.", remedy)
    tried = [library for library in GEO_TRIALS if importlib.util.find_spec(library)]
    for library in tried:
        if error := run_python(GEO_TRIALS[library], environment=environment)[1]:
            return problem(f"{shown} breaks {library}: {error}", remedy)
    if "GDAL_DATA" in paths and (own := _own_gdal_data()) and not os.path.samefile(own, paths["GDAL_DATA"]):
        return warning(f"{shown}: rasterio has brought its own, in {own}, and would not use it.", remedy)
    if not tried:
        return warning(f"{shown}: this would break rasterio's wheel, which is not installed yet.", remedy)
    return ok(f"{shown}: {' and '.join(tried)} can read a coordinate system all the same.")


def _own_gdal_data() -> str | None:
    """The files that rasterio's wheel brings for GDAL."""
    spec = importlib.util.find_spec("rasterio")
    folders = [os.path.join(place, "gdal_data") for place in (spec and spec.submodule_search_locations) or ()]
    return next(filter(os.path.isdir, folders), None)
