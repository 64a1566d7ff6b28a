"""Which versions of Python, geoflow and key packages a process works with: cheap enough to be asked of each driver."""

from __future__ import annotations

import os
import platform
import re
import sys
from functools import cache
from typing import Any

PACKAGES = {
    *("numpy", "pandas", "pydantic", "cloudpickle", "rasterio", "rio-cogeo", "gdal", "fiona", "pyogrio", "geopandas"),
    *("shapely", "pyproj", "pyarrow", "h3", "xarray", "zarr", "dask", "exactextract", "scipy", "scikit-image"),
}
_INSTALLED = re.compile(r"(.+?)-([^-]+)(?:-py\d[\d.]*)?\.(?:dist|egg)-info")
# GDAL and PROJ come within wheels of other names: told by what is loaded already, since to load them takes long.
_CARRIED = {"GDAL": ("rasterio", "__gdal_version__"), "PROJ": ("pyproj", "__proj_version__")}
_MOST, _LONGEST = 50, 100


def environment() -> dict[str, str]:
    """Names and versions, of packages those that are installed here."""
    loaded = {name: getattr(sys.modules.get(module), attribute, None) for name, (module, attribute) in _CARRIED.items()}
    return _installed() | {name: str(version) for name, version in loaded.items() if version}


@cache
def _installed() -> dict[str, str]:
    """By the names of folders on the path: to ask `importlib.metadata` of each takes eight times as long."""
    found: dict[str, str] = {}
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")
        except OSError:
            continue
        for name in names:
            if name.endswith("-info") and (about := _INSTALLED.fullmatch(name)):
                package = re.sub(r"[-_.]+", "-", about[1]).lower()
                if package in PACKAGES:
                    found.setdefault(package, about[2])
    python = f"{platform.python_implementation()} {platform.python_version()}"
    system = f"{platform.system()} {platform.release()}, {platform.machine()}"
    return {
        "Python": python,
        "system": system,
        "geoflow": getattr(sys.modules["geoflow"], "__version__", "?"),
        **dict(sorted(found.items())),
    }


def sound(told: Any) -> dict[str, str]:
    """What a row says of its environment, as far as it is what `environment` gives: it may say anything."""
    pairs = list(told.items())[:_MOST] if isinstance(told, dict) else []
    return {name: version[:_LONGEST] for name, version in pairs if isinstance(version, str) and len(name) <= _LONGEST}
