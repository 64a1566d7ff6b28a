"""Write the table of codes in docs/check.md, from the catalogue that the check itself uses."""

from __future__ import annotations

from pathlib import Path

from geoflow.tools.check import RULES

PAGE = Path(__file__).parents[1] / "docs" / "check.md"
BEGIN, END = "<!-- codes -->\n", "<!-- end of codes -->\n"


def table() -> str:
    rows = ["| code | | what is found | in production | to do |", "|---|---|---|---|---|"]
    for code, rule in sorted(RULES.items()):
        cells = (code, rule.severity, rule.title, rule.why, rule.remedy)
        rows.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def page(text: str) -> str:
    """*text* with the table of now."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
