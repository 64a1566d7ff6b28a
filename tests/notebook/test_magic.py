"""%geoflow: how a line is read, what the verbs are worth and say, what the Tab key offers; in a shell, in a kernel."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from traitlets.config import Config

import geoflow as gf
from geoflow import api as default
from geoflow.commands import grammar, values, verbs
from geoflow.commands.line import words
from geoflow.commands.magic import typed
from tests.helpers import jobs
from tests.helpers.sessions import ROOT, OpenSession

FAILS: dict[str, Any] = {"do": "raise", "value": "ValueError"}


# How a line is read


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ('message="hi {name}"', {"message": "hi {name}"}),
        ("message='it is'", {"message": "it is"}),
        ("message=it's", {"message": "it's"}),
        ("n=3 text=\"3\" other='3'", {"n": 3, "text": "3", "other": "3"}),
        ('tasks=[{"do": "ok", "v": [1, 2]}, {"t": "a ] b"}]', {"tasks": [{"do": "ok", "v": [1, 2]}, {"t": "a ] b"}]}),
        ("bands=['B1', 'B2'] box=(1, 2.5)", {"bands": ["B1", "B2"], "box": (1, 2.5)}),
        ("a=true b=True c=null d=None e=nan f=", {"a": True, "b": True, "c": None, "d": None, "e": "nan", "f": ""}),
        ("tile=33_12 day=2024-10-11 colour=#fff", {"tile": "33_12", "day": "2024-10-11", "colour": "#fff"}),
        ("n=1 # the first one n=2", {"n": 1}),
        (r'path="C:\data" lines="a\nb"', {"path": r"C:\data", "lines": "a\nb"}),
        ("n=$things text='$things' cost=$5", {"n": [1, {}], "text": "$things", "cost": "$5"}),
        ('q="a \\"b\\" c" --params', {"q": 'a "b" c'}),
    ],
)
def test_parameters_are_read_as_a_person_means_them(written: str, meant: dict[str, Any]) -> None:
    found = [word.text for word in words(written) if not word.text.startswith("-")]
    assert values.parameters(found, {"things": [1, {}]}) == meant


def test_a_variable_is_passed_as_the_object_itself() -> None:
    things = object()
    assert values.parameters(["n=$things"], {"things": things})["n"] is things
    assert values.parameters(["n=$things"])["n"] == "$things"  # a terminal has none


@pytest.mark.parametrize("written", ["n=[1, 2", 'message="hi', "'alone", "n={[}"])
def test_what_is_never_closed_is_told(written: str) -> None:
    with pytest.raises(values.UsageError, match="is never closed"):
        list(words(written))


@pytest.mark.parametrize(
    ("line", "query"),
    [
        ("sql select 'it' || \"x\" where a['b'] = 1 -- c", "select 'it' || \"x\" where a['b'] = 1 -- c"),
        ("--store a.db sql -o df select 1;", "select 1;"),
        ('sql "select 1" --store a.db', "select 1"),
        ("sql", None),
    ],
)  # fmt: skip
def test_a_query_is_taken_as_it_stands(line: str, query: str | None) -> None:
    found, quiet = typed(line)
    assert not quiet
    assert (query in found) if query else found == ["sql"]
    assert query is None or len(found) == 2 + 2 * ("--store" in line) + 2 * ("-o" in line.split())


# In a shell


@pytest.fixture(scope="module")
def interactive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InteractiveShell]:
    main = sys.modules["__main__"]
    config = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=config, ipython_dir=str(tmp_path_factory.mktemp("ipython")))
    shell.set_next_input = lambda text, replace=False: shell.user_ns.update(next_input=text)
    yield shell
    InteractiveShell.clear_instance()
    sys.modules["__main__"] = main


class Shell:
    """A shell with the magic, to type cells into."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.ip = shell

    def __call__(self, cell: str) -> Any:
        """What the cell is worth; what it raised is raised here."""
        found = self.ip.run_cell(cell)
        found.raise_error()
        return found.result

    def error(self, cell: str) -> str:
        """The one line that *cell* ends with."""
        with pytest.raises(UsageError) as raised:
            self(cell)
        assert raised.type is UsageError
        return str(raised.value)

    def tab(self, line: str) -> list[str]:
        """What the Tab key offers at the end of *line*."""
        from IPython.core.completer import provisionalcompleter

        with provisionalcompleter():
            found = list(self.ip.Completer.completions(line, len(line)))
        return [line[: one.start] + one.text for one in found]


@pytest.fixture
def shell(interactive: InteractiveShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A shell in an empty folder, where nothing was opened yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GEOFLOW_WORKERS", "0")
    monkeypatch.setenv("GEOFLOW_BASE_DELAY", "0")
    monkeypatch.setenv("GEOFLOW_DISPLAY", "none")
    monkeypatch.setattr(default, "_session", None)
    monkeypatch.setattr(default, "_opened", [])
    before = set(interactive.user_ns)
    interactive.run_line_magic("reload_ext", "geoflow")
    yield Shell(interactive)
    for name in set(interactive.user_ns) - before:
        del interactive.user_ns[name]
    for session in default.opened():
        session.close()


@pytest.fixture
def session(shell: Shell, open_session: OpenSession) -> gf.Session:
    """A session that the user has opened."""
    return open_session(workers=0)


def test_each_verb_is_one_of_the_terminals_and_has_help(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    known = grammar.commands(notebook=True).commands
    assert {*known} == {*verbs.VERBS, "load"}
    for verb in known:
        assert shell(f"%geoflow {verb} --help") is None
        assert f"Usage: %geoflow {verb} " in capsys.readouterr().out
    assert shell("%geoflow --help") is None
    assert "used from then on" in capsys.readouterr().out


def test_a_job_runs_and_is_the_value_and_frames_are_values(shell: Shell) -> None:
    job = shell('%geoflow run hello_world n=2 message="hi {name}"')
    assert isinstance(job, gf.JobHandle)
    assert (job.status, job.parameters["message"]) == ("completed", "hi {name}")
    shell("df = %geoflow tasks --limit 3")
    assert shell("list(df['task_id'])") == job.tasks()["task_id"].tolist()[:3]
    assert shell("%geoflow jobs")["job_id"].tolist() == [job.id]
    assert shell(f"%geoflow status {job.id[:8]}").id == job.id
    assert shell("%geoflow logs --limit 1")["message"].tolist() == [f"job {job.id[:8]} completed"]
    assert shell("%geoflow errors").empty
    assert shell(f"%geoflow history {job.id[:8]} --limit 1")["event"].tolist() == ["finalized"]
    assert shell("%geoflow tasks; # all of them") is None
    assert shell("%geoflow run hello_world n=2;") is None


def test_a_variable_of_the_notebook_is_a_parameter_a_job_or_a_query(session: gf.Session, shell: Shell) -> None:
    shell.ip.push({"things": [{}, FAILS], "first": session.run("acts", tasks=[FAILS, {}, {}])})
    assert shell("%geoflow run acts tasks=$things").parameters == {"tasks": [{}, FAILS]}
    assert len(shell("%geoflow tasks $first")) == 3
    assert len(shell("%geoflow errors")) == 1
    assert shell('q = "select count(*) as n from jobs"\n%geoflow sql $q')["n"].tolist() == [2]
    assert shell.error("%geoflow run acts tasks=$thing") == (
        "There is no variable thing here. To say $thing as it is, quote it."
    )


def test_a_job_type_of_the_notebook_goes_by_its_name(shell: Shell) -> None:
    shell(
        "import geoflow\nfrom pydantic import BaseModel\nclass P(BaseModel):\n    n: int\n    unit: str = 'm'\n"
        "lengths = geoflow.JobType('lengths', params=P)\n"
        "@lengths.stage\ndef one(p: P) -> dict:\n    return {'n': p.n}\n"
    )
    assert shell.tab("%geoflow run len") == ["%geoflow run lengths"]
    assert shell.tab("%geoflow run lengths ") == ["%geoflow run lengths n=", "%geoflow run lengths unit="]
    assert shell("%geoflow run lengths n=3").status == "completed"


def test_check_is_a_report_of_a_job_type_of_the_notebook_or_of_the_session(session: gf.Session, shell: Shell) -> None:
    shell(
        "import geoflow as gf\nlengths = gf.JobType('lengths')\n@lengths.stage\ndef measure():\n"
        "    return {'success': False, 'error': 'no', 'retryable': False}"
    )
    report = shell("%geoflow check lengths")
    assert "GF331" in [found.code for found in report.findings]
    assert shell("%geoflow check acts tasks=[{}]").ok
    assert shell("%geoflow check acts tasks=[{}];") is None
    assert shell.tab("%geoflow check len") == ["%geoflow check lengths"]
    assert "%geoflow check hello_world n=" in shell.tab("%geoflow check hello_world ")
    assert shell.error("%geoflow check nothing").startswith("Unknown job type 'nothing'")


def test_a_cell_has_the_parameters_in_json_or_yaml(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shell('%%geoflow run hello_world n=4\n{"n": 3, "message": "one"}').parameters["n"] == 4
    pytest.importorskip("yaml")
    assert shell("%%geoflow submit hello_world\nn: 2\nmessage: two\n").wait().parameters["message"] == "two"
    assert shell.error("%%geoflow run hello_world\nn: [1\n").startswith(
        "The cell is neither JSON nor YAML: line 2: expected ',' or ']'"
    )
    assert shell.error("%%geoflow run hello_world\n- 1\n") == (
        "The cell must say parameters by name, such as n: 3, and not [1]."
    )
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert shell.error("%%geoflow run hello_world\nn: 2\n").endswith("For YAML, install PyYAML.")


def test_a_cell_is_a_query_whose_answer_may_go_to_a_variable(session: gf.Session, shell: Shell) -> None:
    session.run("acts", tasks=[{}, {}])
    assert shell("%%geoflow sql\nselect status,\n  count(*) as n from tasks group by 1")["n"].tolist() == [2]
    assert shell("%%geoflow sql -o found\nselect 1 as one") is None
    assert shell("found")["one"].tolist() == [1]
    assert shell("%geoflow sql select 'a b' as text, 2 as n;")["text"].tolist() == ["a b"]
    assert shell.error("%%geoflow sql -o 2x\nselect 1") == "2x cannot be the name of a variable."
    assert (
        shell.error("%%geoflow jobs\nx") == "%%geoflow jobs takes nothing from a cell: write %geoflow jobs, with one %."
    )


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%geoflow", "the following arguments are required: VERB. See %geoflow --help."),
        ("%geoflow rum x", "There is no verb 'rum'. Did you mean run? See %geoflow --help."),
        ("%geoflow run", "the following arguments are required: JOB_TYPE. See %geoflow run --help."),
        ("%geoflow run hello_wrold", "Unknown job type 'hello_wrold'. Did you mean 'hello_world'?"),
        ("%geoflow run hello_world n=abc", "hello_world refuses these parameters:\n  - n: "),
        ("%geoflow run hello_world n", "A parameter is written name=value, such as n=3, and not 'n'."),
        ("%geoflow run hello_world --json", "%geoflow run does not know --json. See %geoflow run --help."),
        ("%geoflow run hello_world n=[1", "The bracket [ is never closed: [1"),
        ("%geoflow jobs", "There is no store geoflow.db in /"),
        ("%geoflow jobs --store no.db", "There is no store no.db in /"),
        ("%geoflow tasks --limit few", "argument --limit: 'few' is not a number of rows."),
        ("%geoflow convert a.db b.db", "There is no store at a.db"),
        ("%geoflow backup b.db", "There is no store geoflow.db in /"),
        ("%geoflow restore b.db", "There is no backup at b.db"),
    ],
)
def test_an_error_is_one_line_and_makes_no_store(shell: Shell, tmp_path: Path, cell: str, said: str) -> None:
    assert shell.error(cell).startswith(said)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_geoflow_are_lines_too_and_tracebacks_with_debug(session: gf.Session, shell: Shell) -> None:
    session.run("acts", tasks=[{}])
    assert shell.error("%geoflow status ffff").startswith("No job in ")
    assert shell.error("%geoflow debug").endswith("(acts) failed. Name one: s1-t0.")
    assert shell.error("%geoflow sql select nothing").startswith("The query cannot be answered")
    with pytest.raises(gf.errors.JobNotFound):
        shell("%geoflow --debug status ffff")


def test_S44_secrets_do_not_come_up_in_an_error(shell: Shell) -> None:
    assert "hunter2" not in shell.error("%geoflow run hello_world password=hunter2 n=x")


# The session


def test_the_session_that_was_opened_last_is_used_unless_a_store_is_named(
    shell: Shell, open_session: OpenSession, tmp_path: Path
) -> None:
    first = open_session("first.db", workers=0)
    second = open_session("second.db", workers=0)
    job = shell("%geoflow run acts tasks=[{}]")
    assert job.runtime is second.runtime
    assert shell.error("%geoflow --store first.db jobs").startswith("There is no store first.db in /")
    assert shell("%geoflow status").runtime is second.runtime  # what failed has changed nothing
    assert shell("%geoflow --store first.db run acts tasks=[{}]").runtime is first.runtime
    assert shell("%geoflow status").runtime is first.runtime
    third = shell(f"%geoflow --store {tmp_path / 'third.db'} run acts tasks=[{{}},{{}}]").runtime
    assert third.settings.store == str(tmp_path / "third.db")
    assert "acts" in third.registry
    assert shell("%geoflow status").runtime is third
    fourth = shell("%geoflow --workers 1 jobs;\n%geoflow status").runtime
    assert (fourth.settings.workers, fourth.settings.store) == (1, third.settings.store)
    shell.ip.push({"job": job})
    assert shell("%geoflow status $job").runtime is second.runtime
    assert shell("%geoflow status").runtime is fourth


def test_a_session_that_nobody_holds_any_more_is_not_used(shell: Shell, open_session: OpenSession) -> None:
    kept = open_session("kept.db", workers=0)
    gf.open("gone.db", workers=0)
    assert default.latest_session() == kept


def test_workers_of_a_store_in_memory_are_not_changed(shell: Shell) -> None:
    session = gf.open(":memory:", workers=0)
    assert shell("%geoflow run hello_world n=1").runtime is session.runtime
    assert shell.error("%geoflow --workers 2 jobs").startswith("The store is in memory")


# Taking jobs further, and single tasks


def test_verbs_that_take_a_job_further(session: gf.Session, shell: Shell, trace: Any) -> None:
    task = {**FAILS, "trace": trace.path, "until_attempt": 2}
    job = shell(f"%geoflow run acts tasks=[{task}] finalize=raise")
    assert job.status == "failed"
    assert shell("%geoflow retry").with_errors
    assert shell(f"%geoflow refinalize {job.id[:6]}").id == job.id
    assert shell(f"%geoflow cancel {job.id[:6]}").status == "completed"
    assert trace.lines() == ["s1-t0 1", "s1-t0 2"]
    shell.ip.push({"found": shell("%geoflow resume")})
    assert repr(shell("found")) == "No job is interrupted."
    assert shell("%geoflow run acts tasks=[{}] --on-existing raise").status == "completed"
    assert "exists and is completed" in shell.error("%geoflow run acts tasks=[{}] --on-existing raise")


def test_load_puts_a_call_of_the_handler_into_the_next_cell(session: gf.Session, shell: Shell) -> None:
    job = session.run("acts", tasks=[{}, {"do": "fail", "value": {"retryable": False}}])
    shell.ip.push({"session": session, "act": jobs.act})
    assert shell("%geoflow load") is None
    text = shell("next_input")
    assert text.startswith(f"# Task s1-t1 of job {job.id[:8]}, stage 1, which failed: ReturnedFailure: it said no\n")
    assert shell(text) == {"success": False, "error": "it said no", "retryable": False}


def test_debug_is_worth_what_the_handler_returned(
    session: gf.Session, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    session.run("acts", tasks=[{"value": 7}, FAILS])
    assert shell("%geoflow debug s1-t0")["result"]["value"] == 7
    assert "It did not raise." in capsys.readouterr().out
    assert shell("%geoflow debug") is None
    assert capsys.readouterr().out.endswith("ValueError: a ValueError on purpose\n")
    assert "begin or end with 's1': s1-t0, s1-t1." in shell.error("%geoflow debug s1")


def test_tracebacks_are_printed_beside_the_frame_of_errors(
    session: gf.Session, shell: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    session.run("acts", tasks=[FAILS, FAILS])
    capsys.readouterr()
    assert len(shell("%geoflow errors --traceback")) == 2
    assert capsys.readouterr().out.count("Traceback") == 1


# The Tab key


def test_verbs_options_and_job_types_are_offered(shell: Shell, tmp_path: Path) -> None:
    verbs = ("run", "resume", "retry", "rerun", "refinalize", "reset", "restore")
    assert shell.tab("%geoflow r") == [f"%geoflow {verb}" for verb in verbs]
    assert shell.tab("df = %geoflow ta") == ["df = %geoflow tasks"]
    assert shell.tab("%geoflow run ") == ["%geoflow run hello_world", "%geoflow run list_container_contents"]
    assert shell.tab("%%geoflow run he") == ["%%geoflow run hello_world"]
    assert shell.tab("%geoflow run hello_world --on") == ["%geoflow run hello_world --on-existing"]
    assert shell.tab("%geoflow run x --on-existing re")[1:] == [
        f"%geoflow run x --on-existing {w}" for w in ("resume", "rerun")
    ]
    assert shell.tab("%geoflow tasks --state can") == ["%geoflow tasks --state cancelled"]
    (tmp_path / "tiles.py").touch()
    (tmp_path / "tiles.txt").touch()
    assert shell.tab("%geoflow run t") == ["%geoflow run tiles.py"]
    assert shell.tab("%geoflow retry x --load ti") == [f"%geoflow retry x --load tiles.{end}" for end in ("py", "txt")]
    assert shell.tab("print('%geo") != ["print('%geoflow"]


def test_parameters_are_offered_by_the_job_type_or_by_its_last_job(session: gf.Session, shell: Shell) -> None:
    line = "%geoflow run hello_world "
    assert shell.tab(line) == [line + name for name in ("n=", "message=", "failure_rate=")]
    assert shell.tab(line + "n=3 m") == [line + "n=3 message="]
    session.run("acts", tasks=[], colour="red")
    assert shell.tab("%geoflow run acts ") == ["%geoflow run acts tasks=", "%geoflow run acts colour="]
    shell.ip.push({"colours": []})
    assert shell.tab("%geoflow run acts colour=$co") == ["%geoflow run acts colour=$colours"]


@pytest.mark.parametrize(
    ("cell", "offered"),
    [
        ("%%geoflow run hello_world\n", ["n: ", "message: ", "failure_rate: "]),
        ("%%geoflow run hello_world n=3\nme", ["message: "]),
        ("%%geoflow submit hello_world\nmessage: hi\n", ["n: ", "failure_rate: "]),
        ('%%geoflow run hello_world\n{"n": 3, ', ['"message": ', '"failure_rate": ']),
        ('%%geoflow run hello_world\n{\n  "n": 3,\n  "me', ['"message": ']),
    ],
)
def test_in_the_body_of_a_cell_the_parameters_that_are_not_said_yet_are_offered(
    shell: Shell, cell: str, offered: list[str]
) -> None:
    begun = re.search(r'"?\w*\Z', cell)
    assert begun is not None
    assert shell.tab(cell) == [cell[: begun.start()] + text for text in offered]


@pytest.mark.parametrize(
    "cell",
    [
        "%geoflow run hello_world n=pr",
        "%geoflow run hello_world pr",
        "%%geoflow run hello_world\nmessage: pr",
        "%%geoflow run hello_world\n  pr",
        "%%geoflow sql\nselect pr",
        "%%geoflow run no_such_type\npr",
    ],
)
def test_nothing_of_pythons_is_offered_there(shell: Shell, cell: str) -> None:
    assert shell.tab(cell) == [cell]


def test_jobs_and_tasks_are_offered_the_latest_and_the_failed_first(session: gf.Session, shell: Shell) -> None:
    older, latest = session.run("acts", tasks=[{}]), session.run("acts", tasks=[{}, FAILS])
    assert shell.tab("%geoflow status ") == [f"%geoflow status {job.id[:8]}" for job in (latest, older)]
    assert shell.tab("%geoflow debug ") == ["%geoflow debug s1-t1", "%geoflow debug s1-t0"]
    of_older = f"%geoflow load {older.id[:8]}/"
    assert shell.tab(of_older) == [f"{of_older}s1-t0"]
    shell.ip.push({"older": older})
    assert shell.tab("%geoflow errors $ol") == ["%geoflow errors $older"]


def test_the_tab_key_leaves_everything_as_it_is(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text("raise SystemExit")
    for line in (
        "status ",
        "debug 3",
        "run loud.py ",
        "run loud ",
        "--store x",
        'run "',
        "run hello_world n=[1 ",
        "sql s",
    ):
        shell.tab(f"%geoflow {line}")
    assert [path.name for path in tmp_path.iterdir()] == ["loud.py"]
    assert default._session is None


# In a kernel


@dataclass
class Told:
    """What a cell did: its streams, prompts and values, in order, and the reply."""

    texts: list[tuple[str, str]]
    reply: dict[str, Any]

    def __getitem__(self, kind: str) -> str:
        return "".join(text for found, text in self.texts if found == kind)


class Kernel:
    """A kernel with the magic, and a person who types what they are told to."""

    def __init__(self, manager: KernelManager, client: BlockingKernelClient) -> None:
        self.manager, self.client = manager, client

    def __call__(self, cell: str, *answers: str) -> Told:
        left, deadline = list(answers), time.monotonic() + 60
        texts: list[tuple[str, str]] = []
        message, reply, idle = self.client.execute(cell, allow_stdin=bool(answers)), None, False
        while reply is None or not idle:
            assert time.monotonic() < deadline, texts
            for channel in (self.client.stdin_channel, self.client.iopub_channel, self.client.shell_channel):
                try:
                    found = channel.get_msg(timeout=0.02)
                except Empty:
                    continue
                if found["parent_header"].get("msg_id") != message:
                    continue
                kind, content = found["msg_type"], found["content"]
                if kind == "execute_reply":
                    reply = content
                elif kind == "input_request":
                    texts.append(("prompt", content["prompt"]))
                    self.client.input(left.pop(0) if left else "q")
                elif kind == "stream":
                    texts.append((content["name"], content["text"]))
                elif kind in ("execute_result", "display_data"):
                    texts.append((kind, content["data"].get("text/plain", "")))
                elif kind == "error":
                    texts.append((kind, "\n".join(content["traceback"])))
                idle = idle or content.get("execution_state") == "idle"
        return Told([(kind, re.sub(r"\x1b\[[\d;]*m", "", text)) for kind, text in texts], reply)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    folder = tmp_path_factory.mktemp("kernel")
    paths = [ROOT, str(Path(gf.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    own = {"IPYTHONDIR": str(folder), "PYTHONPATH": os.pathsep.join(paths), "GEOFLOW_BASE_DELAY": "0"}
    manager, client = start_new_kernel(cwd=str(folder), env=os.environ | own)
    found = Kernel(manager, client)
    found("%load_ext geoflow\nimport geoflow as gf\nsession = gf.open('work.db', workers=1)")
    found("from tests.helpers import jobs\nsession.register(jobs)")
    yield found
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_kernel_has_the_magic_its_values_and_its_errors_in_one_line(kernel: Kernel) -> None:
    told = kernel("%geoflow run hello_world n=1")
    assert told.reply["status"] == "ok"
    assert "completed" in told["execute_result"] + told["display_data"]
    assert kernel("df = %geoflow tasks\nprint(len(df), df['status'].iloc[0])")["stdout"] == "2 completed\n"
    told = kernel("%geoflow status ffff")
    assert told["stderr"] == "UsageError: No job in work.db has an id that begins with 'ffff'; see jobs().\n"
    assert told["error"] == ""
    assert (told.reply["status"], told.reply["ename"]) == ("error", "UsageError")
    told = kernel("%geoflow --debug status ffff")
    assert "Traceback" in told["error"]
    assert told.reply["ename"] == "JobNotFound"


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("session.run('tile_stats')", "DefinitionError: Unknown job type 'tile_stats'."),
        ("session.run('hello_world', n=-1)", "ParameterError: "),
        ("session.job('ffff')", "JobNotFound: No job in work.db has an id that begins with 'ffff'; see jobs()."),
        ("session.run('acts', tasks=[{'do': 'fail', 'token': 'x'}], note=5).result()", "JobFailed: Job "),
        ("gf.JobType('x y')", "DefinitionError: "),
        (
            "tiles = gf.JobType('tiles')\n@tiles.each(print)\ndef measure(item):\n    return item",
            "DefinitionError: tiles: ",
        ),
    ],
)
def test_a_mistake_is_one_block_of_text_in_a_cell_and_no_traceback(kernel: Kernel, cell: str, shown: str) -> None:
    told = kernel(cell)
    assert told["error"].startswith(shown)
    assert "Traceback" not in told["error"]
    assert "site-packages" not in told["error"]
    assert (told.reply["status"], told.reply["ename"]) == ("error", shown.partition(":")[0])


def test_a_mistake_has_its_traceback_where_user_code_is_in_it_and_for_who_asks(kernel: Kernel) -> None:
    told = kernel("def ask():\n    return session.job('ffff')\n\nask()")
    assert "Traceback" in told["error"]
    assert "return session.job('ffff')" in told["error"]
    kernel("%xmode Verbose")
    assert "Traceback" in kernel("session.job('ffff')")["error"]
    kernel("%xmode Context")
    assert kernel("session.job('ffff')")["error"].startswith("JobNotFound: ")
    assert "ZeroDivisionError" in kernel("1 / 0")["error"]


def test_a_kernel_is_given_the_next_cell(kernel: Kernel) -> None:
    kernel("%geoflow run acts tasks=[{'do': 'fail', 'value': {'retryable': False}}]")
    [payload] = kernel("%geoflow load").reply["payload"]
    assert (payload["source"], payload["replace"]) == ("set_next_input", False)
    assert "from tests.helpers.jobs import act" in payload["text"]
    assert "it said no" in kernel(payload["text"])["execute_result"]


def test_a_kernel_offers_what_there_is(kernel: Kernel) -> None:
    code = "df = %geoflow run hello_world m"
    found = kernel.client.complete(code, len(code), reply=True, timeout=30)["content"]
    assert (found["matches"], found["cursor_start"]) == (["message="], len(code) - 1)
    code = "%%geoflow run hello_world\nn: 3\nme"
    found = kernel.client.complete(code, len(code), reply=True, timeout=30)["content"]
    assert (found["matches"], found["cursor_start"], found["cursor_end"]) == (["message: "], len(code) - 2, len(code))
    code = '%%geoflow run hello_world\n{"me"}'  # an editor has closed the quote
    found = kernel.client.complete(code, len(code) - 2, reply=True, timeout=30)["content"]
    assert (found["matches"], found["cursor_start"]) == (['"message'], len(code) - 5)


PARSE = """
import json
def parse(params):
    width = len(params["do"])
    return {"success": True, "result": json.loads(params["do"])}
class Parse(jobs.Acts):
    job_type = "parse"
    stages = [{"number": 1, "name": "parse", "task_type": "act"}]
session.register(Parse, handlers={"act": parse})
"""


def test_debug_lands_in_the_users_frame_of_the_notebook(kernel: Kernel) -> None:
    kernel(PARSE)
    kernel("%geoflow run parse tasks=[{'do': '{oops'}]")
    told = kernel("%geoflow debug", "p width", "up", "q")
    assert "It raised JSONDecodeError: Expecting property name" in told["stdout"]
    assert re.search(r"> .*\(4\)parse\(\)", told["stdout"])
    assert "\n5\n" in told["stdout"]
    assert "Oldest frame" in told["stdout"]
    assert told["prompt"] == "ipdb> " * 3
    assert told.reply["status"] == "ok"
    another = "session.job(session.jobs()['job_id'].iloc[-1])"
    told = kernel(f"{another}\njob = %geoflow status\njob.debug()", "p width", "q")
    assert "\n5\n" in told["stdout"]


def test_debug_prints_the_traceback_where_a_program_runs_the_notebook(kernel: Kernel) -> None:
    kernel(PARSE)
    kernel("%geoflow run parse tasks=[{'do': '{oops'}]")
    told = kernel("%geoflow debug")
    assert told.reply["status"] == "ok"
    assert "in parse\n" in told["stdout"]
    assert "/geoflow/" not in told["stdout"]
    assert told["stdout"].count("Traceback") == 1


def test_what_ended_its_process_is_not_run_in_the_kernel(kernel: Kernel) -> None:
    kernel("%geoflow run acts tasks=[{'do': 'signal', 'value': 'SIGKILL'}]")
    told = kernel("%geoflow debug", "q")
    assert "Here it would end this kernel" in told["stderr"]
    assert kernel("1 + 1")["execute_result"] == "2"


def test_S38_an_interrupt_is_one_line_which_says_how_to_go_on(kernel: Kernel, tmp_path: Path) -> None:
    began = tmp_path / "began"
    kernel("import threading, os, signal, time")
    kernel(
        f"def interrupt():\n    while not os.path.exists({str(began)!r}): time.sleep(0.02)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\nthreading.Thread(target=interrupt).start()"
    )
    told = kernel(f"%geoflow run acts tasks=[{{'do': 'sleep', 'value': 60, 'trace': {str(began)!r}}}]")
    assert told.reply["ename"] == "KeyboardInterrupt"
    assert re.fullmatch(
        r"Interrupted\. Job \w{8} was put back\. Next: %geoflow resume \w{8} --load tests\.helpers\.jobs", told["error"]
    )
