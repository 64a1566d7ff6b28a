"""What exported modules carry with them whose functions use `gf.save` or `gf.load`. It imports nothing of geoflow.

It does what `executors.saved` does for the types that it knows, in one folder for all jobs, where a file is from the
moment that it is saved.
"""

import hashlib
import importlib
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

_FORMATS = {
    "builtins.bytes": ("bytes", ".bin"),
    "numpy.ndarray": ("npy", ".npy"),
    "pandas.DataFrame": ("parquet", ".parquet"),
    "geopandas.GeoDataFrame": ("geoparquet", ".parquet"),
}


def _save(value: Any) -> dict[str, Any]:
    """Write *value* to a file in the folder that the environment names; a reference to it, which is JSON."""
    kind = f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"
    if kind not in _FORMATS:
        raise TypeError(f"A {kind} is not saved here, but {', '.join(_FORMATS)}: write it to a file, return the path.")
    if not os.environ.get("SAVED_FOLDER"):
        raise ValueError("What is saved needs a place: have SAVED_FOLDER name a folder that all workers share.")
    how, ending = _FORMATS[kind]
    path = Path(os.environ["SAVED_FOLDER"], f".{uuid4().hex}{ending}")
    try:
        if how == "bytes":
            path.write_bytes(value)
        elif how == "npy":
            importlib.import_module("numpy").save(path, value, allow_pickle=False)
        else:
            value.to_parquet(path, **({"engine": "pyarrow"} if how == "parquet" else {}))
        _compare(value, _read(how, path))
        digest, size = _hash(path), path.stat().st_size
        target = path.with_name(f"{digest[:32]}{ending}")
        os.replace(path, target)
    finally:
        path.unlink(missing_ok=True)
    return {"gf_saved": how, "path": str(target), "bytes": size, "sha256": digest}


def _load(reference: Any) -> Any:
    """What `_save` was given, by the reference that it returned."""
    path = Path(reference["path"])
    if not path.is_file() or (path.stat().st_size, _hash(path)) != (reference["bytes"], reference["sha256"]):
        raise ValueError(f"{path} is gone, or is not what was saved: run its task again.")
    return _read(reference["gf_saved"], path)


def _read(how: str, path: Path) -> Any:
    if how == "bytes":
        return path.read_bytes()
    if how == "npy":
        return importlib.import_module("numpy").load(path, allow_pickle=False)
    if how not in ("parquet", "geoparquet"):
        raise TypeError(f"The format {how!r} of {path} is not read here.")
    return importlib.import_module("pandas" if how == "parquet" else "geopandas").read_parquet(path)


def _compare(value: Any, back: Any) -> None:
    """Refuse what would not come back the same, as the library compares it that the type is of."""
    kind, why = type(value).__name__, ""
    if kind == "bytes":
        same = value == back
    elif kind == "ndarray":
        dtypes = [value.dtype, *(field[0] for field in (value.dtype.fields or {}).values())]
        same = value.dtype == back.dtype and not any(dtype.metadata for dtype in dtypes)
        same = same and value.tobytes() == back.tobytes()
    else:
        try:
            if kind == "DataFrame":
                importlib.import_module("pandas.testing").assert_frame_equal(back, value, check_exact=True)
            else:
                importlib.import_module("geopandas.testing").assert_geodataframe_equal(back, value)
            shapes = [column for column in value if str(value[column].dtype) == "geometry"]  # a ring is no line
            same = all(list(map(str, value[column])) == list(map(str, back[column])) for column in shapes)
            same = same and value.attrs == back.attrs
        except AssertionError as exc:
            same, why = False, f" {exc}"
    if not same:
        raise TypeError(f"This {kind} would not come back the same: convert it first.{why}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
