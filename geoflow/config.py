"""Settings: arguments first, then GEOFLOW_* variables, then defaults.

The only module that imports pydantic-settings, which takes as long to import as the rest of the engine: workers are
sent what they need of the settings and never import this.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from geoflow.errors import ParameterError
from geoflow.text import DEFAULT_SECRETS, exact, mask_text, plain, shorten

PREFIX = "GEOFLOW_"
_A_DAY = 86_400.0
_A_YEAR = 365 * _A_DAY


def _none_is_none(value: object) -> object:
    return None if isinstance(value, str) and value.strip().lower() == "none" else value


def _not_a_truth_value(value: object) -> object:
    # Else `workers=True` would mean one worker.
    if isinstance(value, bool):
        raise ValueError("True and False are not numbers here")
    return value


def _split(value: object) -> object:
    """A tuple from ``a, b`` or from a JSON list; what is neither is left for pydantic to refuse."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError:
            return value
    return [part.strip() for part in value.split(",") if part.strip()]


def _path(value: object) -> object:
    return os.path.expanduser(os.fspath(value)) if isinstance(value, str | os.PathLike) else value


def _fold(fold: Callable[[str], str]) -> BeforeValidator:
    return BeforeValidator(lambda value: fold(value.strip()) if isinstance(value, str) else value)


_NUMBER = BeforeValidator(_not_a_truth_value)
Whole = Annotated[int, _NUMBER]
Seconds = Annotated[float, Field(allow_inf_nan=False), _NUMBER]
Limit = Annotated[Annotated[Seconds, Field(gt=0, le=_A_YEAR)] | None, BeforeValidator(_none_is_none)]
Names = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], NoDecode, BeforeValidator(_split)]
_LIMIT = "a number of seconds above 0, at most a year, or 'none' for no limit"
_DELAY = "a number of seconds from 0 to 86400"


class Settings(BaseSettings):
    """How a session runs. Make one with `load_settings`, whose errors name the variable that is wrong.

    Each field's description says what is allowed; durations are in seconds.
    """

    model_config = SettingsConfigDict(frozen=True, env_prefix=PREFIX, env_ignore_empty=True, extra="forbid")

    store: Annotated[str, BeforeValidator(_path), Field(min_length=1, pattern=r"^[^\x00]*$")] = Field(
        default="geoflow.db", description="the path of the store's file, or ':memory:'"
    )
    workers: Annotated[Annotated[Whole, Field(ge=0, le=1000)] | None, BeforeValidator(_none_is_none)] = Field(
        default=None, description="a whole number from 0 (run in this process) to 1000, or 'none' for one a processor"
    )
    max_retries: Annotated[Whole, Field(ge=0, le=1000)] = Field(default=3, description="a whole number from 0 to 1000")
    base_delay: Annotated[Seconds, Field(ge=0, le=_A_DAY)] = Field(default=1.0, description=_DELAY)
    max_delay: Annotated[Seconds, Field(ge=0, le=_A_DAY)] = Field(default=10.0, description=_DELAY)
    task_timeout: Limit = Field(default=None, description=_LIMIT)
    plan_timeout: Limit = Field(default=600.0, description=_LIMIT)
    finalize_timeout: Limit = Field(default=600.0, description=_LIMIT)
    on_failure: Annotated[Literal["drain", "stop"], _fold(str.lower)] = Field(
        default="drain", description="drain or stop"
    )
    synchronous: Annotated[Literal["NORMAL", "FULL"], _fold(str.upper)] = Field(
        default="NORMAL", description="NORMAL (a power cut may cost the last moments, which run again) or FULL"
    )
    log_file: Annotated[Path | None, BeforeValidator(_path)] = Field(
        default=None, description="the path of a file; without it the log lies beside the store"
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], _fold(str.upper)] = Field(
        default="INFO", description="DEBUG, INFO, WARNING, ERROR or CRITICAL"
    )
    secrets: Names = Field(
        default=DEFAULT_SECRETS, description="words parted by commas, or a JSON list; they replace the default ones"
    )
    preload: Names = Field(default=(), description="names of modules parted by commas, or a JSON list")
    output_limit: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = Field(
        default=64_000, description="a whole number of characters, from 0 to 1000000000"
    )
    display: Annotated[Literal["auto", "html", "text", "none"], _fold(str.lower)] = Field(
        default="auto", description="auto, html, text or none"
    )

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
        # One setting may break several rules at once: each is told once, by what is allowed.
        wrong = {str(problem["loc"][0]): None for problem in error.errors(include_url=False)}
    raise ParameterError("\n".join(_problem(name, given) for name in wrong))


def _problem(name: str, given: dict[str, Any]) -> str:
    if name in given:
        where, value = name, given[name]
    else:
        where, value = PREFIX + name.upper(), _from_environment(name)
    shown = shorten(mask_text(plain(exact(value))), 60)
    return f"{where} cannot be '{shown}'. Allowed is {Settings.model_fields[name].description}."


def _from_environment(name: str) -> str:
    # The lookup ignores case, as pydantic-settings' own does.
    return next((value for key, value in os.environ.items() if key.upper() == PREFIX + name.upper()), "")
