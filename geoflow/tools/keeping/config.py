"""The settings of a session: each with its value, and where that comes from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geoflow.render.report import Report, Table
from geoflow.support.masking import mask_text
from geoflow.support.project import NAME
from geoflow.support.settings import Settings


@dataclass(repr=False)
class Config(Report):
    """The settings in force. ``settings`` are those of the session; `Settings.origin` says where each comes from."""

    settings: Settings
    exit_status: int = 0  # for a shell

    title = "Settings: arguments count first, then GEOFLOW_* variables, then pyproject.toml, then defaults."

    def parts(self) -> list[str | Table]:
        said = self.document()
        files = dict.fromkeys(each["from"] for each in said if Path(each["from"]).name == NAME)
        rows = [
            (each["setting"], _shown(each["value"]), NAME if each["from"] in files else each["from"]) for each in said
        ]
        return [[("setting", "value", "from"), *rows], *(f"{NAME} is {os.path.relpath(file)}" for file in files)]

    def document(self) -> list[dict[str, Any]]:
        """For programs: rows of a setting, its value and where that comes from."""
        held = self.settings.model_dump(mode="json")
        return [
            {
                "setting": name,
                "value": mask_text(value) if isinstance(value, str) else value,
                "from": self.settings.origin(name),
            }
            for name, value in held.items()
        ]


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value[:2])) + f" and {len(value) - 2} more" * (len(value) > 2)
    return "none" if value is None else str(value)
