"""The parameter form: which control a parameter gets, what is said of it as one types, and what a click does."""

from __future__ import annotations

import enum
import html
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, Literal

import ipywidgets  # type: ignore[import-untyped, unused-ignore]
import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

import geoflow as gf
from geoflow.errors import DefinitionError, ParameterError
from geoflow.jobtypes.contract import job_id_for
from geoflow.jobtypes.schema import fields_of, schema_of
from geoflow.notebook.form import Form
from tests.helpers.sessions import OpenSession

MARKUP = "<img src=x onerror='alert(1)'>"


class Resampling(enum.Enum):
    NEAREST = "nearest"
    CUBIC = "cubic"


class Inner(BaseModel):
    depth: int = 1


class Everything(BaseModel):
    """One field of each kind."""

    model_config = ConfigDict(extra="forbid")

    folder: str = Field(title="Where", description=f"The folder {MARKUP}")
    tiles: int = Field(default=3, ge=1, lt=51)
    rate: float = Field(default=0.5, ge=0, le=1)
    many: int = Field(default=5, ge=0, le=10**9)
    limit: int = Field(default=10, ge=0)
    below: float = Field(default=1.5, le=9)
    free: int = 7
    free_float: float = 7.5
    even: int = Field(default=4, ge=1, le=9, multiple_of=2)
    strict: bool = False
    method: Literal["fast", "good"] = "good"
    resampling: Resampling = Resampling.CUBIC
    level: Literal[1, True, "1"] = 1
    quality: int | None = Field(default=None, ge=1, le=100)
    maybe: bool | None = None
    crs: str | None = None
    note: str = "one\ntwo"
    api_key: str = "hunter2"
    day: date = date(2026, 11, 23)
    bands: list[int] = [1, 2]
    options: dict[str, int] = {}
    inner: Inner = Inner()
    either: int | str = "a word"

    @model_validator(mode="after")
    def _agree(self) -> Everything:
        if self.tiles > self.many:
            raise ValueError("there are not so many tiles")
        return self


class Base:
    """A job type of one task, to be given parameters."""

    job_type = "base"
    description = "A job type of a test."
    stages = [{"number": 1, "name": "work", "task_type": "work"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return params

    @classmethod
    def generate_job_id(cls, params: dict[str, Any]) -> str:
        return job_id_for(cls.job_type, params)

    @staticmethod
    def create_tasks_for_stage(stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
        return [{"task_id": "t", "task_type": "work", "parameters": {}}]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        return {"given": context.parameters}


class OfAll(Base):
    job_type = "of_all"
    description = f"All kinds {MARKUP}"

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        return Everything.model_validate(params).model_dump(mode="json")


class AsInProduction(Base):
    """As production's classes say what their parameters are, and check them."""

    job_type = "as_in_production"
    parameters_schema = {
        "n": {"type": "int", "min": 1, "max": 1000, "default": 3},
        "message": {"type": "str", "required": True},
        "tier": {"type": "str", "default": "all", "allowed": ["all", "archive"]},
        "quality": {"type": "int", "default": None, "min": 1, "max": 100},
        "strict": {"type": "bool", "default": False},
        "names": {"type": "list", "default": []},
    }

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        if not 1 <= params.get("n", 3) <= 1000:
            raise ValueError(f"Parameter 'n' must be between 1 and 1000, got {params['n']}")
        if not params.get("message"):
            raise ValueError("message must not be empty")
        if params["message"] == "tell password=hunter2":
            raise ValueError(f"cannot do it: {params['message']}")
        if params["message"] == "break":
            raise KeyError("half-written")
        return params


class Silent(Base):
    """Says nothing of its parameters."""

    job_type = "silent"

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(params.get("tasks"), list):
            raise ValueError("tasks must be a list")
        return params


def work(params: dict[str, Any]) -> dict[str, Any]:
    return {"success": True}


NewForm = Callable[..., Form]


@pytest.fixture
def new_form(open_session: OpenSession) -> NewForm:
    """Forms on one session, whose jobs run in this process."""
    session = open_session(workers=0)
    for job_class in (OfAll, AsInProduction, Silent):
        session.register(job_class, handlers={"work": work})
    return session.form


def kinds(form: Form) -> dict[str, str]:
    return {name: type(control).__name__ for name, control in form.inputs.items()}


def shown(form: Form) -> str:
    """All the text of the form's HTML, and the descriptions of its controls."""
    found: list[str] = []

    def walk(widget: Any) -> None:
        if isinstance(widget, ipywidgets.HTML) and widget.layout.display != "none":
            found.append(html.unescape(re.sub(r"<[^>]*>", "", widget.value)))
        found.append(getattr(widget, "description", ""))
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(form.widget)
    return "\n".join(found)


# Which control a parameter gets


def test_each_kind_of_parameter_has_a_control_of_its_own(new_form: NewForm) -> None:
    assert kinds(new_form("of_all")) == {
        "folder": "Text",
        "tiles": "IntSlider",
        "rate": "FloatSlider",
        "many": "BoundedIntText",
        "limit": "BoundedIntText",
        "below": "BoundedFloatText",
        "free": "BoundedIntText",
        "free_float": "BoundedFloatText",
        "even": "IntSlider",
        "strict": "Checkbox",
        "method": "Dropdown",
        "resampling": "Dropdown",
        "level": "Dropdown",
        "quality": "Textarea",
        "maybe": "Dropdown",
        "crs": "Text",
        "note": "Textarea",
        "api_key": "Password",
        "day": "Text",
        "bands": "Textarea",
        "options": "Textarea",
        "inner": "Textarea",
        "either": "Textarea",
    }


def test_controls_start_with_the_defaults_and_keep_to_the_bounds(new_form: NewForm) -> None:
    form = new_form("of_all", folder="data")
    assert form.parameters == {
        **{
            name: value
            for name, value in Everything(folder="data").model_dump(mode="json").items()
            if value is not None
        }
    }
    tiles, even = form.inputs["tiles"], form.inputs["even"]
    assert (tiles.min, tiles.max, tiles.value) == (1, 50, 3)
    assert (even.step, even.value) == (2, 4)
    assert form.inputs["limit"].min == 0


def test_every_control_can_be_read_back_as_what_it_was_given(new_form: NewForm) -> None:
    given = Everything(
        folder="x", tiles=5, rate=0.25, strict=True, method="fast", quality=80, maybe=False, crs="EPSG:1"
    )
    said = given.model_copy(update={"note": "three", "either": 3, "bands": [], "level": True})
    form = new_form("of_all", **said.model_dump(mode="json"))
    assert form.parameters == said.model_dump(mode="json")
    assert form.parameters["level"] is True
    assert form.problems == {}


def test_labels_are_titles_and_help_is_text_beside_the_control(new_form: NewForm) -> None:
    form = new_form("of_all")
    assert form.inputs["folder"].description == "Where"
    assert form.inputs["free_float"].description == "free_float"  # not the title that pydantic makes of it
    text = shown(form)
    assert f"The folder {MARKUP}" in text
    assert "at least 0, at most 1,000,000,000" in text
    assert "at least 0" in text
    assert "may be left out" in text


def test_S45_markup_in_names_titles_helps_and_errors_is_shown_as_text(open_session: OpenSession) -> None:
    class Marked(Base):
        job_type = "marked"
        description = MARKUP
        parameters_schema = {
            "properties": {
                MARKUP: {
                    "type": "string",
                    "title": MARKUP,
                    "description": MARKUP,
                    "pattern": MARKUP,
                    "default": MARKUP,
                },
                "choice": {"enum": [MARKUP], "title": "another", "description": MARKUP},
            }
        }

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            raise ValueError(f"no: {MARKUP}")

    session = open_session(workers=0)
    session.register(Marked, handlers={"work": work})
    form = session.form("marked")
    assert list(form.problems.values()) == [f"no: {MARKUP}"]
    assert shown(form).count(MARKUP) >= 5
    assert not any("<img" in part for part in (*html_of(form), form._head()))
    assert all(not control.description_allow_html for control in form.inputs.values())


def html_of(form: Form) -> list[str]:
    found: list[str] = []

    def walk(widget: Any) -> None:
        if isinstance(widget, ipywidgets.HTML):
            found.append(widget.value)
        for child in getattr(widget, "children", ()):
            walk(child)

    walk(form.widget)
    return found


def test_a_value_that_its_control_could_not_show_is_shown_as_it_is(new_form: NewForm) -> None:
    form = new_form("of_all", folder="data", tiles=5000, strict="perhaps")
    assert kinds(form)["tiles"] == kinds(form)["strict"] == "Textarea"
    assert form.inputs["tiles"].value == "5000"
    assert "less than 51" in form.problems["tiles"]
    form.inputs["tiles"].value = "5"
    form.inputs["strict"].value = "true"
    assert form.problems == {}


def test_a_value_for_no_parameter_is_refused_with_those_that_there_are(new_form: NewForm) -> None:
    with pytest.raises(ParameterError, match=r"of_all has no 'folders'. It has folder, tiles, "):
        new_form("of_all", folders="data")


def test_an_unknown_job_type_is_refused_with_the_near_one(new_form: NewForm) -> None:
    with pytest.raises(DefinitionError, match="Did you mean 'hello_world'"):
        new_form("hello_wrld")


# What may be left out


def test_what_is_not_given_is_left_out_and_may_be_given(new_form: NewForm) -> None:
    form = new_form("of_all", folder="data")
    quality = form.inputs["quality"]
    assert quality.value == ""
    assert not {"quality", "maybe", "crs"} & form.parameters.keys()
    quality.value = "80"
    form.inputs["maybe"].value = 1
    form.inputs["crs"].value = "EPSG:4326"
    assert [form.parameters[name] for name in ("quality", "maybe", "crs")] == [80, False, "EPSG:4326"]
    quality.value = "many"
    assert form.problems["quality"].startswith("Input should be a valid integer")
    quality.value = " "
    assert "quality" not in form.parameters
    assert form.problems == {}


def test_null_is_said_where_leaving_it_out_would_mean_the_default(open_session: OpenSession) -> None:
    class Nullable(Base):
        job_type = "nullable"
        parameters_schema = {
            "properties": {
                "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": 5},
                "size": {"type": ["number", "null"]},
                "name": {"type": "string"},
            },
            "required": ["size"],
        }

    session = open_session(workers=0)
    session.register(Nullable, handlers={"work": work})
    form = session.form("nullable")
    assert form.parameters == {"limit": 5, "size": None}
    form.inputs["limit"].value = ""
    assert form.parameters == {"limit": None, "size": None}


def test_a_choice_that_must_be_made_is_not_made_for_one(open_session: OpenSession) -> None:
    class Choosing(BaseModel):
        tier: Literal["hot", "cold"]
        sure: bool

    class Chosen(Base):
        job_type = "chosen"

        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            return Choosing(**params).model_dump()

    session = open_session(workers=0)
    session.register(Chosen, handlers={"work": work})
    form = session.form(Chosen)
    assert form.problems == {"tier": "It is needed.", "sure": "It is needed."}
    form.inputs["tier"].value, form.inputs["sure"].value = 1, 0
    assert form.parameters == {"tier": "cold", "sure": True}
    assert form.problems == {}


# What is said of it


def test_S7_each_change_is_checked_by_the_job_type_and_its_words_stand_at_the_field(new_form: NewForm) -> None:
    form = new_form("of_all")
    assert form.problems == {"folder": "It is needed."}
    assert form.button.disabled
    form.inputs["folder"].value = "d"
    assert form.problems == {}
    assert not form.button.disabled
    form.inputs["day"].value = "tomorrow"
    assert list(form.problems) == ["day"]
    assert form.problems["day"] in shown(form)
    form.inputs["day"].value = "2026-11-24"
    assert "✗" not in shown(form)


def test_what_is_wrong_inside_a_value_says_where(new_form: NewForm) -> None:
    form = new_form("of_all", folder="data")
    form.inputs["bands"].value = '[1, "two"]'
    assert form.problems["bands"].startswith("1: Input should be a valid integer")


def test_what_is_about_no_single_field_stands_under_the_form(new_form: NewForm) -> None:
    form = new_form("of_all", folder="data", tiles=9)
    form.inputs["many"].value = 4
    assert form.problems == {"": "there are not so many tiles"}
    assert shown(form).rstrip().endswith("there are not so many tiles")
    assert form.button.disabled


def test_text_that_is_not_json_is_told_at_its_field(new_form: NewForm) -> None:
    form = new_form("of_all", folder="data")
    form.inputs["bands"].value = "[1, 2"
    form.inputs["options"].value = '{"a": NaN}'
    assert form.problems["bands"].startswith("This is not JSON: Expecting ',' delimiter")
    assert "NaN is no number" in form.problems["options"]
    form.inputs["bands"].value = form.inputs["options"].value = ""
    assert form.problems == {}
    assert not {"bands", "options"} & form.parameters.keys()


def test_where_text_is_allowed_what_is_not_json_is_text(new_form: NewForm) -> None:
    form = new_form("of_all", folder="data")
    form.inputs["either"].value = "EPSG:4326"
    assert form.parameters["either"] == "EPSG:4326"
    form.inputs["either"].value = "12"
    assert form.parameters["either"] == 12


def test_productions_own_schema_and_words_are_understood(new_form: NewForm) -> None:
    form = new_form("as_in_production", n=5000)
    assert list(kinds(form).values()) == ["Textarea", "Text", "Dropdown", "Textarea", "Checkbox", "Textarea"]
    assert form.problems == {"n": "Parameter 'n' must be between 1 and 1000, got 5000"}
    form.inputs["n"].value = "50"
    assert form.problems == {"message": "message must not be empty"}
    form.inputs["message"].value = "hi"
    assert form.problems == {}
    assert form.parameters == {"n": 50, "message": "hi", "tier": "all", "strict": False, "names": []}


def test_S44_secrets_are_neither_shown_nor_told(new_form: NewForm) -> None:
    form = new_form("as_in_production", message="tell password=hunter2")
    assert "password=***" in shown(form)
    assert "hunter2" not in shown(form)
    assert "hunter2" not in repr(new_form("of_all", folder="data"))
    with pytest.raises(ParameterError, match=r"password=\*\*\*"):
        form.submit()


def test_validation_that_is_half_written_is_told_and_never_raised(new_form: NewForm) -> None:
    form = new_form("as_in_production", message="break")
    assert form.problems == {"": "validate_job_parameters raised KeyError: 'half-written'"}


def test_a_job_type_that_tells_nothing_gets_one_field_of_json(new_form: NewForm) -> None:
    form = new_form("silent")
    assert kinds(form) == {"parameters": "Textarea"}
    assert form.problems == {"": "tasks must be a list"}
    form.inputs["parameters"].value = "[1]"
    assert "no JSON object" in form.problems["parameters"]
    form.inputs["parameters"].value = '{"tasks": [1'
    assert "This is not JSON" in form.problems["parameters"]
    form.inputs["parameters"].value = '{"tasks": [1]}'
    assert form.problems == {}
    assert form.parameters == {"tasks": [1]}
    assert new_form("silent", tasks=[2]).parameters == {"tasks": [2]}


def test_a_job_type_without_parameters_has_only_a_button(open_session: OpenSession) -> None:
    class Bare(Base):
        job_type = "bare"
        parameters_schema = type("Nothing", (BaseModel,), {})

    session = open_session(workers=0)
    session.register(Bare, handlers={"work": work})
    form = session.form("bare")
    assert form.inputs == {}
    assert form.submit().result() == {"given": {}}
    with pytest.raises(ParameterError, match="It has no parameters"):
        session.form("bare", n=1)


def test_a_cell_that_was_run_again_checks_the_form_that_is_there(open_session: OpenSession) -> None:
    class Strict(Base):
        @staticmethod
        def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
            raise ValueError("not any more")

    session = open_session(workers=0)
    session.register(Base, handlers={"work": work})
    form = session.form("base")
    assert form.problems == {}
    session.register(Strict, handlers={"work": work})
    with pytest.raises(ParameterError, match="not any more"):
        form.submit()


# Schemas


@pytest.mark.parametrize(
    "told",
    [
        {"properties": {"n": {"type": "integer"}}, "required": ["n"]},
        {"n": {"type": "int", "required": True}},
        staticmethod(lambda: {"properties": {"n": {"type": "integer"}}, "required": ["n"]}),
        type("Model", (BaseModel,), {"__annotations__": {"n": int}}),
    ],
    ids=["JSON schema", "production's", "a function", "a model"],
)
def test_a_schema_may_be_told_in_four_ways(told: Any) -> None:
    schema = schema_of(type("Told", (Base,), {"parameters_schema": told}))
    assert schema is not None
    assert [(field.name, field.kind) for field in fields_of(schema)] == [("n", "integer")]


@pytest.mark.parametrize(
    "told",
    [{}, {"n": 3}, "n", {"properties": []}, lambda cls: 1 / 0],
    ids=["empty", "no properties", "text", "list", "raises"],
)
def test_what_is_no_schema_is_taken_for_none(told: Any) -> None:
    assert schema_of(type("Told", (Base,), {"parameters_schema": told})) is None


def test_a_schema_that_leads_to_itself_is_read_to_an_end() -> None:
    schema = {
        "properties": {"a": {"$ref": "#/$defs/A"}, "b": {"$ref": "#/nowhere"}, "c": True},
        "$defs": {"A": {"$ref": "#/$defs/A"}},
    }
    assert [field.kind for field in fields_of(schema)] == ["json"] * 3


# What a click does


def test_a_click_submits_what_the_form_says(new_form: NewForm) -> None:
    form = new_form("hello_world")
    form.inputs["n"].value = 2
    form.inputs["message"].value = "Hi"
    form.button.click()
    assert form.job is not None
    assert form.job.result()["first"][1]["greeting"] == "Hi #2"
    assert f"Job {form.job.id[:8]} was submitted." in shown(form)
    assert not form.button.disabled


def test_S9_a_second_click_finds_the_job_and_says_so(new_form: NewForm) -> None:
    form = new_form("hello_world", n=2)
    form.submit().wait()
    first = form.job
    form.button.click()
    assert form.job is not None
    assert first is not None
    assert form.job.id == first.id
    assert "was submitted before, and is completed" in shown(form)


def test_a_click_on_what_is_wrong_submits_nothing(new_form: NewForm) -> None:
    form = new_form("of_all")
    form.button.click()
    assert form.job is None
    assert "It is needed." in shown(form)


def test_what_goes_wrong_with_a_click_is_told_in_the_form(new_form: NewForm, tmp_path: Path) -> None:
    form = new_form("hello_world", n=2)
    session = form.runtime
    session.close()
    (tmp_path / "work.db").unlink(missing_ok=True)
    (tmp_path / "work.db").mkdir()
    form.button.click()
    assert form.job is None
    assert "is a folder" in shown(form)
    assert not form.button.disabled


def test_a_form_of_the_default_session_is_a_function_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from geoflow import api as default

    monkeypatch.setattr(default, "_session", None)
    monkeypatch.setenv("GEOFLOW_STORE", str(tmp_path / "own.db"))
    monkeypatch.setenv("GEOFLOW_WORKERS", "0")
    monkeypatch.setenv("GEOFLOW_DISPLAY", "none")
    form = gf.form("hello_world", n=1)
    try:
        assert form.submit().result()["greetings"] == 1
        with gf.open(tmp_path / "other.db", workers=0, display="none") as other:
            assert gf.form("hello_world", other, n=1).submit().runtime is other.runtime
    finally:
        gf.default_session().close()


CELL = """
import geoflow as gf
session = gf.open('work.db', workers=0)
form = session.form('hello_world', n=2)
form
"""


def test_in_a_notebook_a_click_shows_the_job_in_the_cell_of_the_form(tmp_path: Path) -> None:
    manager = pytest.importorskip("jupyter_client.manager")
    kernel, client = manager.start_new_kernel(kernel_name="python3", cwd=str(tmp_path))
    try:
        cell = client.execute(CELL)
        shown = until(client, lambda data: "application/vnd.jupyter.widget-view+json" in data, cell)
        assert shown["text/plain"].startswith("<form of hello_world, n=2")
        button = until(client, lambda data: "text/plain" in data, client.execute("form.button.model_id"))
        click = {"method": "custom", "content": {"event": "click"}}
        comm = {"comm_id": button["text/plain"].strip("'"), "data": click}
        client.shell_channel.send(client.session.msg("comm_msg", comm))
        job = until(client, lambda data: "completed" in data.get("text/html", ""), cell)
        assert "<script" not in job["text/html"]
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


def until(client: Any, wanted: Callable[[dict[str, Any]], bool], cell: str) -> dict[str, Any]:
    """The first output, new or updated, of the request *cell* that is *wanted*."""
    while True:
        message = client.get_iopub_msg(timeout=60)
        data = message["content"].get("data")
        if isinstance(data, dict) and message["parent_header"].get("msg_id") == cell and wanted(data):
            return data
