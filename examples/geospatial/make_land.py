"""Make data/land30s.tif of the mask that global-land-mask has: ``pip install --no-deps global-land-mask==1.0.0``."""

import importlib.util
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

OUT = Path(__file__).parent / "data" / "land30s.tif"


def main() -> None:
    found = importlib.util.find_spec("global_land_mask")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps global-land-mask==1.0.0")
    sea = np.load(Path(found.origin).with_name("globe_combined_mask_compressed.npz"))["mask"]
    shape = {"width": sea.shape[1], "height": sea.shape[0], "count": 1, "dtype": "uint8"}
    laid = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "zlevel": 9}
    place = {"crs": "EPSG:4326", "transform": from_origin(-180, 90, 1 / 120, 1 / 120)}
    with rasterio.open(OUT, "w", driver="GTiff", **shape, **laid, **place) as made:
        made.write((~sea).view(np.uint8), 1)


if __name__ == "__main__":
    main()
