"""Ten rasters of which five are broken, each in a way of its own, made of a whole one.

python examples/geospatial/break_rasters.py scene.tif folder
"""

import sys
from itertools import pairwise
from pathlib import Path

STRIPS = 5


def strips(scene: str, folder: Path) -> list[Path]:
    """The scene cut from west to east into five rasters without a gap, with each pixel as it was."""
    import rasterio
    from rasterio.windows import Window

    made = []
    with rasterio.open(scene) as source:
        edges = [round(source.width * number / STRIPS) for number in range(STRIPS + 1)]
        for number, (west, east) in enumerate(pairwise(edges)):
            window = Window(west, 0, east - west, source.height)
            laid = {"width": east - west, "height": source.height, "transform": source.window_transform(window)}
            laid |= {"driver": "GTiff", "compress": "deflate", "tiled": False, "blockysize": 16}
            made.append(folder / f"strip_{number}.tif")
            with rasterio.open(made[-1], "w", **(source.profile | laid)) as strip:
                strip.write(source.read(window=window))
    return made


def cut_in_half(whole: Path, path: Path) -> None:
    content = whole.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def bits_flipped(whole: Path, path: Path) -> None:
    """A block's first 200 bytes are others: the file opens, has its CRS and its size, and cannot be read.

    Further inside a block DEFLATE often makes other pixels of them, without an error: GDAL does not check its sum.
    """
    import rasterio

    with rasterio.open(whole) as source:
        begin = int(source.get_tag_item("BLOCK_OFFSET_0_9", "TIFF", bidx=1))
    content = bytearray(whole.read_bytes())
    content[begin : begin + 200] = bytes(byte ^ 0x55 for byte in content[begin : begin + 200])
    path.write_bytes(content)


def html(_: Path, path: Path) -> None:
    """What a server says in place of a file."""
    path.write_text("<!doctype html><title>403</title><p>Your token has expired.</p>\n")


def empty(_: Path, path: Path) -> None:
    path.touch()


def no_crs(whole: Path, path: Path) -> None:
    _rewritten(whole, path, crs=None)


def other_crs(whole: Path, path: Path) -> None:
    """The same numbers, said to be metres of UTM."""
    _rewritten(whole, path, crs="EPSG:32613")


def float64(whole: Path, path: Path) -> None:
    """Eight bytes for what one held."""
    _rewritten(whole, path, dtype="float64")


def _rewritten(whole: Path, path: Path, **otherwise: object) -> None:
    import rasterio

    with rasterio.open(whole) as source:
        profile = source.profile | otherwise
        with rasterio.open(path, "w", **profile) as made:
            made.write(source.read().astype(profile["dtype"]))


BREAKS = (cut_in_half, bits_flipped, html, empty, no_crs)
MORE = (other_crs, float64)


def main(scene: str, folder: str) -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    whole = strips(scene, Path(folder))
    for number, broken in enumerate(BREAKS):
        broken(whole[number], Path(folder, f"{broken.__name__}.tif"))


if __name__ == "__main__":
    main(*sys.argv[1:])
