"""Settings: arguments first, then GEOFLOW_* variables, then what the project's pyproject.toml says, then defaults.

The variables are read here, in three lines: to import pydantic-settings for it took a sixth of a cold start.
"""

from __future__ import annotations

import contextlib
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError

from geoflow.errors import ParameterError
from geoflow.support.allowance import AllowFailed, of_text
from geoflow.support.amount import bytes_of
from geoflow.support.masking import DEFAULT_SECRETS, mask_text
from geoflow.support.project import project_settings
from geoflow.support.text import shorten

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


def _budget(value: object) -> object:
    return value if value is None or value == "auto" else bytes_of(value)


Number = Annotated[int, Field(ge=0, le=1000)]
Delay = Annotated[float, Field(ge=0, le=86_400)]
Limit = Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_none)]
Allowed = Annotated[AllowFailed, BeforeValidator(of_text), BeforeValidator(_none)]
Budget = Annotated[int | Literal["auto"] | None, BeforeValidator(_budget), BeforeValidator(_none)]
Names = Annotated[tuple[str, ...], BeforeValidator(_words)]


class Settings(BaseModel):
    """How a session runs. Make one with `load_settings`, whose errors name the variable that is wrong.

    Durations are in seconds; a limit of None is no limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    store: Annotated[str, BeforeValidator(_store), Field(min_length=1)] = "geoflow.db"  # or ":memory:", or "duckdb"
    workers: Annotated[Number | None, BeforeValidator(_none)] = None  # one a processor; 0 runs in this process
    max_retries: Number = 3
    base_delay: Delay = 1.0
    max_delay: Delay = 10.0
    task_timeout: Limit = None
    start_timeout: Limit = 60.0  # for a worker's sign of life: to start, to load code, to hand over its answer
    plan_timeout: Limit = 600.0
    finalize_timeout: Limit = 600.0
    on_failure: Literal["drain", "stop", "continue"] = "drain"
    allow_failed: Allowed = None  # of a stage's tasks; None is all but one
    reuse: bool = False  # whether tasks take over the results of equal ones that have completed
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"  # NORMAL: a power cut may cost the last moments, which run again
    log_file: Annotated[Path | None, BeforeValidator(_path)] = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    secrets: Names = DEFAULT_SECRETS  # these replace the default ones
    preload: Names = ()
    sql_files: bool = True  # whether session.sql may read files of this machine
    # A worker process is replaced, by one that has started meanwhile, after about so many tasks, or once it holds so
    # many megabytes. For code that leaks; where none does, a process that stays is the faster one.
    worker_max_tasks: Annotated[Annotated[int, Field(ge=1)] | None, BeforeValidator(_none)] = None
    worker_max_memory: Limit = None
    # Bytes, or text such as "12GB", that all tasks together may need which say what they need; by default what the
    # machine or its control group has, less a reserve.
    memory: Budget = "auto"
    result_limit: Limit = 16.0  # megabytes of JSON that one task may return
    output_limit: Annotated[int, Field(ge=0)] = 64_000  # characters
    display: Literal["auto", "html", "text", "none"] = "auto"

    # Where those that are not the default come from.
    _where: dict[str, str] = PrivateAttr(default_factory=dict)

    def origin(self, name: str) -> str:
        """Where the setting comes from: ``argument``, a variable, the path of a ``pyproject.toml``, ``default``."""
        return self._where.get(name, "default")

    def in_place(self) -> Settings:
        """The same with its paths as they are from the folder of now, whatever folder the process goes to later."""
        store = self.store if self.store == ":memory:" else os.path.abspath(self.store)
        return self.model_copy(update={"store": store, "log_file": self.log_file and self.log_file.absolute()})

    @property
    def store_name(self) -> str:
        """The store as one would say it from the folder of now."""
        with contextlib.suppress(OSError, ValueError):  # the folder is gone, or not above the store
            return str(Path(self.store).relative_to(Path.cwd()))
        return self.store

    @property
    def log_path(self) -> Path | None:
        """Where the log goes: `log_file`, else ``<store>.log``; None for a store in memory, which leaves no file."""
        if self.log_file is not None:
            return self.log_file
        return None if self.store == ":memory:" else Path(self.store + ".log")


def load_settings(**overrides: Any) -> Settings:
    """The settings in force. An override that is None counts as not given; ``"none"`` takes a time limit away.

    Raises `ParameterError` with every argument, variable and entry of ``pyproject.toml`` that cannot be used, and what
    would be allowed.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    unknown = sorted(given.keys() - Settings.model_fields.keys())
    if unknown:
        raise ParameterError(
            f"geoflow has no setting {', '.join(map(repr, unknown))}. "
            f"The settings are: {', '.join(sorted(Settings.model_fields))}."
        )
    said = {variable.upper(): value for variable, value in os.environ.items() if value}
    variables = {name: said[PREFIX + name.upper()] for name in Settings.model_fields if PREFIX + name.upper() in said}
    path, of_project = project_settings()
    if unknown := sorted(of_project.keys() - Settings.model_fields.keys()):
        near = get_close_matches(unknown[0], Settings.model_fields, n=1)
        meant = f"Did you mean {near[0]}?" if near else f"The settings are: {', '.join(sorted(Settings.model_fields))}."
        raise ParameterError(f"{path}: geoflow has no setting {', '.join(map(repr, unknown))}. {meant}")
    where = dict.fromkeys(of_project, str(path))
    where |= {name: PREFIX + name.upper() for name in variables} | dict.fromkeys(given, "argument")
    try:
        settings = Settings(**{**of_project, **variables, **given})
        settings._where.update(where)
        return settings
    except ValidationError as error:
        problems = error.errors(include_url=False)
    lines = []
    for problem in problems:
        name = str(problem["loc"][0])
        named = f"{name} in {path}" if where.get(name) == str(path) else name if name in given else where[name]
        lines.append(f"{named} cannot be '{shorten(mask_text(str(problem['input'])), 60)}': {problem['msg']}.")
    raise ParameterError("\n".join(lines))
