"""Settings: arguments first, then GEOFLOW_* variables, then defaults.

The only module that imports pydantic-settings, which takes as long to import as the rest of the engine: workers are
sent what they need of the settings and never import this.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from geoflow.errors import ParameterError
from geoflow.text import DEFAULT_SECRETS, mask_text, shorten

PREFIX = "GEOFLOW_"


def _none(value: object) -> object:
    return None if str(value).strip().lower() == "none" else value


def _words(value: object) -> object:
    """Words from ``a, b`` or from a JSON list of them."""
    return re.findall(r"""[^\s,"'\[\]]+""", value) if isinstance(value, str) else value


def _path(value: object) -> object:
    return os.path.expanduser(os.fspath(value)) if isinstance(value, str | os.PathLike) else value


def _store(value: object) -> object:
    return "geoflow.duckdb" if value == "duckdb" else _path(value)


Number = Annotated[int, Field(ge=0, le=1000)]
Delay = Annotated[float, Field(ge=0, le=86_400)]
Limit = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_none)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]


class Settings(BaseSettings):
    """How a session runs. Make one with `load_settings`, whose errors name the variable that is wrong.

    Durations are in seconds; a limit of None is no limit.
    """

    model_config = SettingsConfigDict(frozen=True, env_prefix=PREFIX, env_ignore_empty=True, allow_inf_nan=False)

    store: Annotated[str, BeforeValidator(_store), Field(min_length=1)] = "geoflow.db"  # or ":memory:", or "duckdb"
    workers: Annotated[Number | None, BeforeValidator(_none)] = None  # one a processor; 0 runs in this process
    max_retries: Number = 3
    base_delay: Delay = 1.0
    max_delay: Delay = 10.0
    task_timeout: Limit = None
    plan_timeout: Limit = 600.0
    finalize_timeout: Limit = 600.0
    on_failure: Literal["drain", "stop"] = "drain"
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"  # NORMAL: a power cut may cost the last moments, which run again
    log_file: Annotated[Path | None, BeforeValidator(_path)] = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    secrets: Names = DEFAULT_SECRETS  # these replace the default ones
    preload: Names = ()
    output_limit: Annotated[int, Field(ge=0)] = 64_000  # characters
    display: Literal["auto", "html", "text", "none"] = "auto"

    @property
    def log_path(self) -> Path | None:
        """Where the log goes: `log_file`, else ``<store>.log``; None for a store in memory, which leaves no file."""
        if self.log_file is not None:
            return self.log_file
        return None if self.store == ":memory:" else Path(self.store + ".log")


def load_settings(**overrides: Any) -> Settings:
    """The settings in force. An override that is None counts as not given; ``"none"`` takes a time limit away.

    Raises `ParameterError` with every argument and variable that cannot be used, and what would be allowed.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(given.keys() - Settings.model_fields.keys())
    if unknown:
        raise ParameterError(
            f"geoflow has no setting {', '.join(map(repr, unknown))}. "
            f"The settings are: {', '.join(sorted(Settings.model_fields))}."
        )
    try:
        return Settings(**given)
    except ValidationError as error:
        problems = error.errors(include_url=False)
    lines = []
    for problem in problems:
        name = str(problem["loc"][0])
        where = name if name in given else PREFIX + name.upper()
        lines.append(f"{where} cannot be '{shorten(mask_text(str(problem['input'])), 60)}': {problem['msg']}.")
    raise ParameterError("\n".join(lines))
