"""A whole page of drawings, for who has no notebook and no geoflow: one file, without scripts and without a network."""

from __future__ import annotations

from collections.abc import Iterable

from geoflow.render.markup import Html

# Whatever a text in it would do, had it come through: nothing is loaded, and nothing runs.
_PAGE = Html(
    '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{}</title>\n'
    "<style>:root {{ color-scheme: light dark; }} body {{ margin: 0 auto; max-width: 1100px; padding: 12px;"
    " background: light-dark(#fff, #151718); }}\n@media print {{ .geoflow .gf-wide {{ overflow: visible; }}"
    " .geoflow.geoflow td code {{ white-space: pre-wrap; overflow-wrap: anywhere; }} }}\n"
    # What is long wraps; names, states and times do not, also where a table is squeezed onto paper.
    ".geoflow.geoflow.geoflow .gf-told table.gf-table td {{ white-space: nowrap; overflow-wrap: normal; }}\n"
    ".geoflow.geoflow.geoflow .gf-told table.gf-table td.gf-long,"
    " .geoflow.geoflow.geoflow .gf-told table.gf-table td.gf-long code {{ white-space: normal;"
    " overflow-wrap: anywhere; min-width: 9em; }}</style>\n"
    "</head>\n<body>\n{}\n</body>\n</html>\n"
)


def page(title: str, parts: Iterable[str]) -> str:
    """The page with these *parts*, of which the first brings the style."""
    return str(_PAGE.format(title, Html("\n").join(filter(None, parts))))
