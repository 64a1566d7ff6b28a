"""Write what each verb prints with ``--json`` into docs/json.md, from the types that its schema is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from geoflow.commands.documents import DOCUMENTS

PAGE = Path(__file__).parents[1] / "docs" / "json.md"
BEGIN, END = "<!-- fields: python tools/json_table.py -->\n", "<!-- end of fields -->\n"


def fields() -> str:
    """What each verb prints, and then each kind of object in it, with its fields."""
    rows, known = ["| verb | prints |", "|---|---|"], dict[str, Any]()
    for verb, of in DOCUMENTS.items():
        made = TypeAdapter(list[of]).json_schema()  # type: ignore[valid-type]
        rows.append(f"| {verb} | {_kind(made['items'])} |")
        known |= made.get("$defs", {})
    return "\n\n".join(
        ["\n".join(rows), *(_object(name, about) for name, about in known.items() if "properties" in about)]
    )


def _object(name: str, about: dict[str, Any]) -> str:
    said = about.get("description", "").partition("\n")[0].replace("``", "`")
    lines = [f"### {name}", "", *([said, ""] if said else []), "| field | | |", "|---|---|---|"]
    for field, kind in about["properties"].items():
        inner = [each.get("description") for each in kind.get("anyOf", ())]
        meaning = kind.get("description") or next(filter(None, inner), "")
        lines.append(f"| {field} | {_kind(kind)} | {meaning} |")
    return "\n".join(lines)


def _kind(about: dict[str, Any]) -> str:
    if "anyOf" in about:
        return " or ".join(map(_kind, about["anyOf"]))
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return "text" if name == "JobStatus" else name
    if about.get("type") == "array":
        return f"list of {_kind(about.get('items', {}))}"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}
    words |= {"null": "null", "object": "object"}
    return "time" if about.get("format") == "date-time" else words.get(about.get("type", ""), "anything")


def page(text: str) -> str:
    """*text* with the fields of now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{fields()}\n\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
