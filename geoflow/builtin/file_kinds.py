"""What a file is: by how it begins, and by the end of its name."""

from __future__ import annotations

import codecs
import os
import re

HEAD = 4096

# The first match decides. A GeoTIFF is a TIFF and NetCDF-4 is HDF5: what makes them more is not at their beginning.
# Words of letters are taken together with what must follow them, since a text may begin with any word.
SIGNATURES = [
    (re.compile(pattern, re.DOTALL), name)
    for pattern, name in (
        (rb"II[*+]\0|MM\0[*+]", "tiff"),  # with a plus: BigTIFF
        (rb"\x89PNG\r\n\x1a\n", "png"),
        (rb"\xff\xd8\xff", "jpeg"),
        (rb"GIF8[79]a", "gif"),
        (rb"\0\0\0\x0cjP  \r\n\x87\n", "jpeg2000"),
        (rb"SQLite format 3\0.{52}GPKG", "geopackage"),  # SQLite's application_id
        (rb"SQLite format 3\0", "sqlite"),
        (rb"\x89HDF\r\n\x1a\n", "hdf5"),
        (rb"CDF[\x01\x02\x05]", "netcdf"),
        (rb"PAR1", "parquet"),
        (rb"\0\0\x27\x0a.{20}", "shapefile"),  # both .shp and .shx
        (rb"fgb[\x02-\x08]fgb", "flatgeobuf"),
        (rb"LASF.{20}\x01", "las"),
        (rb"GRIB.{3}[\x01\x02]", "grib"),
        (rb"PMTiles[\x03-\x08]", "pmtiles"),
        (rb"PK(\x03\x04|\x05\x06)", "zip"),
        (rb"\x1f\x8b\x08", "gzip"),
        (rb"\x28\xb5\x2f\xfd", "zstd"),
        (rb"BZh[1-9]1AY&SY", "bzip2"),
        (rb"\xfd7zXZ\0", "xz"),
        (rb".{257}ustar", "tar"),
        (rb"%PDF-", "pdf"),
        (rb"\x7fELF", "elf"),
        (rb"..\r\n[\x00-\x03]\0\0\0", "python bytecode"),
    )
]
TEXT_KINDS = [
    (re.compile(r"\s*\{\s*[\"}]|\s*\[\s*([\[{\"\]]|-?\d|true|false|null)"), "json"),
    (re.compile(r"\s*<(!doctype html|html)[\s>]", re.IGNORECASE), "html"),
    (re.compile(r"\s*<(\?xml|!doctype|!--|[a-z_][\w:.-]*[\s/>])", re.IGNORECASE), "xml"),
]
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")


def kind(head: bytes) -> str:
    """What a file is by its first ``HEAD`` bytes: a name in the tables above, ``text``, ``empty`` or ``unknown``."""
    if not head:
        return "empty"
    for signature, name in SIGNATURES:
        if signature.match(head):
            return name
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:  # incrementally: the head may end within a character
        text = codecs.getincrementaldecoder("utf-16" if wide else "utf-8-sig")().decode(head)
    except UnicodeDecodeError:
        return "unknown"
    if CONTROL.search(text):
        return "unknown"
    return next((name for beginning, name in TEXT_KINDS if beginning.match(text)), "text")


def suffix(path: str) -> str:
    """The lower-case suffix with its dot, or ``""``; ``.tar`` is kept before another one, as in ``.tar.gz``."""
    stem, last = os.path.splitext(os.path.basename(path).lower())
    return f".tar{last}" if last and stem.endswith(".tar") else last
