"""Settings: arguments, then GEOFLOW_* variables, then pyproject.toml, then defaults; what is wrong is named."""

from __future__ import annotations

import os

import pytest
from pydantic import ValidationError

import geoflow as gf
from geoflow.errors import GeoflowWarning, ParameterError
from geoflow.support import settings as config
from geoflow.support.masking import DEFAULT_SECRETS
from geoflow.support.settings import load_settings


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith(config.PREFIX):
            monkeypatch.delenv(name)


def test_the_defaults_are_those_that_the_promises_name():
    settings = load_settings()

    assert (settings.store, settings.workers, settings.on_failure) == ("geoflow.db", None, "drain")
    assert (settings.max_retries, settings.base_delay, settings.max_delay) == (3, 1.0, 10.0)  # S26
    assert (settings.task_timeout, settings.plan_timeout, settings.finalize_timeout) == (None, 600, 600)
    assert (settings.synchronous, settings.display, settings.output_limit) == ("NORMAL", "auto", 64_000)
    assert (settings.log_file, settings.log_level, settings.preload) == (None, "INFO", ())
    assert settings.secrets == DEFAULT_SECRETS  # S44


def test_an_argument_goes_before_a_variable_and_a_variable_before_the_default(monkeypatch):
    monkeypatch.setenv("GEOFLOW_WORKERS", "2")
    monkeypatch.setenv("GEOFLOW_MAX_RETRIES", "5")

    settings = load_settings(workers=4)

    assert (settings.workers, settings.max_retries, settings.base_delay) == (4, 5, 1.0)


def test_an_argument_of_none_and_an_empty_variable_count_as_not_given(monkeypatch):
    monkeypatch.setenv("GEOFLOW_WORKERS", "2")
    monkeypatch.setenv("GEOFLOW_SECRETS", "")

    settings = load_settings(workers=None, plan_timeout=None)

    assert (settings.workers, settings.plan_timeout, settings.secrets) == (2, 600, DEFAULT_SECRETS)


def test_the_word_none_takes_a_limit_away(monkeypatch):
    monkeypatch.setenv("GEOFLOW_PLAN_TIMEOUT", "None")

    settings = load_settings(finalize_timeout="none")

    assert (settings.plan_timeout, settings.finalize_timeout) == (None, None)


@pytest.mark.parametrize("text", ["pin, code", '["pin", "code"]', "pin,,code,"])
def test_S44_the_list_of_secrets_is_read_from_words_or_json(monkeypatch, text):
    monkeypatch.setenv("GEOFLOW_SECRETS", text)

    assert load_settings().secrets == ("pin", "code")
    assert load_settings(secrets=["a"]).secrets == ("a",)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("workers", "-1", "greater than or equal to 0"),
        ("workers", "1001", "less than or equal to 1000"),
        ("workers", "two", "valid integer"),
        ("workers", "1.5", "valid integer"),
        ("max_retries", "-1", "greater than or equal to 0"),
        ("base_delay", "1e308", "less than or equal to 86400"),
        ("max_delay", "inf", "finite number"),
        ("task_timeout", "0", "greater than 0"),
        ("plan_timeout", "nan", "finite number"),
        ("on_failure", "ignore", "'drain', 'stop' or 'continue'"),
        ("allow_failed", "1.5", "a share of them from 0.0 to 1.0"),
        ("synchronous", "OFF", "'NORMAL' or 'FULL'"),
        ("log_level", "LOUD", "'DEBUG', 'INFO'"),
        ("output_limit", "-1", "greater than or equal to 0"),
    ],
)
def test_a_wrong_value_is_told_with_its_variable_and_what_is_allowed(monkeypatch, name, value, allowed):
    monkeypatch.setenv(f"GEOFLOW_{name.upper()}", value)

    with pytest.raises(ParameterError) as raised:
        load_settings()

    message = str(raised.value)
    assert message.startswith(f"GEOFLOW_{name.upper()} cannot be '{value}': Input should be")
    assert allowed in message
    assert message.count("\n") == 0

    with pytest.raises(ParameterError) as raised:
        load_settings(**{name: value})
    assert str(raised.value).startswith(f"{name} cannot be '{value}'")


def test_all_that_is_wrong_is_told_at_once(monkeypatch):
    monkeypatch.setenv("geoflow_workers", "many")  # variables are found in any case

    with pytest.raises(ParameterError) as raised:
        load_settings(max_retries=-1)

    lines = str(raised.value).splitlines()
    assert {line.split(" ")[0] for line in lines} == {"GEOFLOW_WORKERS", "max_retries"}
    assert "'many'" in str(raised.value)


def test_S45_a_wrong_value_is_shown_short_plain_and_masked(monkeypatch):
    monkeypatch.setenv("GEOFLOW_WORKERS", "\x1b[31m" + "x" * 1000)

    with pytest.raises(ParameterError) as raised:
        load_settings(display="https://u:hunter2@h")

    assert "\x1b" not in str(raised.value)
    assert "hunter2" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_setting_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ParameterError, match=r"no setting 'worker'.*workers"):
        load_settings(worker=2)


def test_settings_cannot_be_changed():
    settings = load_settings(store="a.db")

    with pytest.raises(ValidationError):
        settings.store = "b.db"
    assert hash(settings) == hash(load_settings(store="a.db"))


def test_paths_are_settled_when_the_session_is_made_not_when_they_are_used(tmp_path, monkeypatch):
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path)
    with gf.open("work.db", log_file="logs/x.log", workers=0, display="none") as session:
        monkeypatch.chdir(tmp_path / "there")
        session.run("hello_world", n=1)
        assert session.settings.log_path == tmp_path / "logs" / "x.log"
    assert {found.name for found in tmp_path.iterdir() if found.suffix == ".db"} == {"work.db"}
    assert (tmp_path / "logs" / "x.log").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_the_log_lies_beside_the_store_unless_it_is_put_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))

    assert load_settings(store=tmp_path / "work.db").log_path == tmp_path / "work.db.log"
    assert load_settings(store="~/work.db").store == str(tmp_path / "work.db")
    assert load_settings(log_file="~/x.log", store=":memory:").log_path == tmp_path / "x.log"
    assert load_settings(store=":memory:").log_path is None


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Write what a project's pyproject.toml says, and be in a folder of that project."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    return (tmp_path / "pyproject.toml").write_text


def test_what_pyproject_says_counts_before_the_default_and_after_all_else(project, tmp_path, monkeypatch):
    project('[project]\nname = "x"\n[tool.geoflow]\nstore = "data.db"\nworkers = 3\nsecrets = ["pin"]\nreuse = true\n')
    monkeypatch.setenv("GEOFLOW_WORKERS", "2")

    settings = load_settings(reuse=False)

    assert (settings.store, settings.workers, settings.reuse) == (str(tmp_path / "data.db"), 2, False)
    assert settings.secrets == ("pin",)
    where = [settings.origin(name) for name in ("store", "workers", "reuse", "max_retries")]
    assert where == [str(tmp_path / "pyproject.toml"), "GEOFLOW_WORKERS", "argument", "default"]
    with gf.Session(workers=0) as session:
        told = {row["setting"]: row for row in session.config().document()}
        assert told["workers"] == {"setting": "workers", "value": 0, "from": "argument"}
        assert told["store"]["from"] == str(tmp_path / "pyproject.toml")
        assert str(session.config()).endswith("\npyproject.toml is ../pyproject.toml")
    assert not (tmp_path / "data.db").exists()


@pytest.mark.parametrize("text", ["", "[tool.other]\nworkers = 3", "# geoflow\n[tool]\n", "not TOML ["])
def test_a_pyproject_that_says_nothing_of_geoflow_changes_nothing(project, text):
    project(text)

    assert load_settings() == config.Settings()


def test_the_nearest_pyproject_alone_is_read(project, tmp_path):
    project("[tool.geoflow]\nworkers = 3")
    (tmp_path / "notebooks" / "pyproject.toml").write_text("[tool.other]")

    assert load_settings().workers is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[tool.geoflow]\nworker = 3", "{path}: geoflow has no setting 'worker'. Did you mean workers?"),
        (
            "[tool.geoflow]\nworkers = -3",
            "workers in {path} cannot be '-3': Input should be greater than",
        ),
        ("[tool]\ngeoflow = 3", "{path}: tool.geoflow is no table of settings."),
        ("[tool.geoflow]\nworkers = ", "{path} cannot be read: Invalid value"),
        ("tool = 'geoflow'", "{path} cannot be read: "),
    ],
)
def test_what_is_wrong_in_pyproject_is_told_with_its_path(project, tmp_path, text, why):
    project(text)

    with pytest.raises(ParameterError) as raised:
        load_settings()

    assert str(raised.value).startswith(why.format(path=tmp_path / "pyproject.toml"))


def test_S43_a_pyproject_of_another_user_is_not_used(project, tmp_path, monkeypatch):
    project("[tool.geoflow]\npreload = ['planted']")
    if os.getuid() == 0:
        os.chown(tmp_path / "pyproject.toml", 12_345, -1)
    else:
        monkeypatch.setattr(os, "getuid", lambda: 12_345)

    with pytest.warns(GeoflowWarning, match="belongs to another user"):
        assert load_settings().preload == ()
