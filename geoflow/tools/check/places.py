"""What handlers and plans say of files: what is open already, paths of this folder, addresses that need credentials."""

from __future__ import annotations

import ast
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from geoflow.tools.check.subject import Subject, plain_function
from geoflow.usercode.packing import unshippable
from geoflow.usercode.references import variables_of
from geoflow.usercode.sources import own, syntax_of

# What has a place in an open file, or a connection, by its library and the name of its class.
_OPEN = {
    "rasterio": ("DatasetReader", "DatasetWriter", "BufferedDatasetWriter", "WarpedVRT", "MemoryFile"),
    "osgeo": ("Dataset", "DataSource", "Layer"),
    "fiona": ("Collection",),
    "netCDF4": ("Dataset",),
    "h5py": ("File",),
    "sqlite3": ("Connection", "Cursor"),
    "duckdb": ("DuckDBPyConnection",),
    "psycopg": ("Connection",),
    "psycopg2": ("connection",),
}
_TAKES_A_PATH = re.compile(
    r"open|(pathlib\.)?Path|os\.(listdir|scandir|makedirs|mkdir|remove|replace|rename)|glob\.glob"
    r"|(io|gzip|rasterio|rio|fiona)\.open|(gdal|ogr)\.(Open|OpenEx)"
    r"|(gpd|geopandas|pd|pandas|pyogrio|xr|xarray|rioxarray|np|numpy)\.((read|open)_\w+|load|loadtxt|genfromtxt)"
)
_RELATIVE = re.compile(r"(?![/~\\])[^:*\n]*(/[^:\n]*|\.\w{1,7})")
# What GDAL looks for (https://gdal.org/user/virtual_file_systems.html), and who reads s3:// and its like: one of these.
_CREDENTIALS: dict[str, tuple[str, ...]] = {
    "s3": (
        *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_NO_SIGN_REQUEST", "AWS_DEFAULT_PROFILE", "AWS_ROLE_ARN"),
        *("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        *("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_WEB_IDENTITY_TOKEN_FILE", "~/.aws/credentials", "~/.aws/config"),
    ),
    "gs": (
        *("GOOGLE_APPLICATION_CREDENTIALS", "GS_ACCESS_KEY_ID", "GS_NO_SIGN_REQUEST", "GS_OAUTH2_REFRESH_TOKEN"),
        *("GS_OAUTH2_PRIVATE_KEY", "GS_OAUTH2_PRIVATE_KEY_FILE", "CPL_GS_CREDENTIALS_FILE", "~/.boto"),
        "~/.config/gcloud/application_default_credentials.json",
    ),
    "az": ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"),
    "oss": ("OSS_ACCESS_KEY_ID", "OSS_SECRET_ACCESS_KEY"),
    "swift": ("SWIFT_STORAGE_URL", "SWIFT_AUTH_V1_URL", "OS_IDENTITY_API_VERSION"),
}
_ANYWHERE = ("GDAL_CONFIG_FILE", "~/.gdal/gdalrc")
_ADDRESS = re.compile(
    r"(?:/vsi(?:zip|gzip|tar|7z)/)?(?P<prefix>/vsi(?P<vsi>s3|gs|az|adls|oss|swift)(?:_streaming)?/|(?P<scheme>s3|gs|az|abfs)://)"
)
_GIVES_CREDENTIALS = re.compile(r"\b(Env|Session|AWSSession|AzureSession|GSSession|SetConfigOption|storage_options)\b")


def opened(subject: Subject, name: str) -> Iterator[tuple[str, str]]:
    """What the handler *name* uses that was open before it is called. What cannot travel is told as that."""
    function = plain_function(subject.function("handler", name))
    for used, value in dict(variables_of(function)).items() if hasattr(function, "__closure__") else ():
        kind = type(value)
        is_stream = isinstance(value, io.IOBase) and value not in (sys.stdin, sys.stdout, sys.stderr)
        if (is_stream or kind.__name__ in _OPEN.get(kind.__module__.partition(".")[0], ())) and not unshippable(
            function
        ):
            yield "GF126", f"The handler of {name!r} uses {used!r}, a {kind.__name__} that is open already."


def places(who: str, function: ast.FunctionDef) -> Iterator[tuple[str, str, Any]]:
    """The first path of the current folder that stands in *function*, and the first address without credentials."""
    for node in own(function):
        if isinstance(node, ast.Call) and node.args and _TAKES_A_PATH.fullmatch(ast.unparse(node.func)):
            first = node.args[0]
            text = _begins(first)
            if text is not None and _RELATIVE.fullmatch(text):
                yield "GF127", f"{who} has a path of the current folder: {ast.unparse(first)}.", node
                break
    if _GIVES_CREDENTIALS.search(ast.unparse(function)):
        return
    for node in own(function):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and (told := lacking(node.value)):
            yield "GF128", f"{who} has an address in {told}", node
            break


def gives_credentials(handler: Any) -> bool:
    """Whether the text of *handler* is about credentials itself, as far as it can be read."""
    _, node = syntax_of(plain_function(handler)) or ("", None)
    return node is not None and _GIVES_CREDENTIALS.search(ast.unparse(node)) is not None


def _begins(node: ast.expr) -> str | None:
    """The text that *node* is, or is sure to begin with, its other parts as x."""
    if isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def lacking(text: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """What of credentials the address *text* needs, where there are none; None of any other text."""
    address = _ADDRESS.match(text)
    if address is None:
        return None
    cloud = address["vsi"] or address["scheme"]
    wanted = _CREDENTIALS["az" if cloud in ("adls", "abfs") else cloud]
    for where in (*wanted, *_ANYWHERE):
        if os.path.exists(os.path.expanduser(where)) if where[0] == "~" else environment.get(where):
            return None
    return f"{address['prefix']}…, and the environment has neither {wanted[0]} nor {wanted[1]}, nor its like."


def leaves(value: Any) -> Iterator[str]:
    """All texts in *value*, which is JSON."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from leaves(item)
    elif isinstance(value, str):
        yield value
