"""The Tab key in a terminal: the real shells, as far as they are here, and what is put where for them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from geoflow.commands import cli, grammar, shells

SHELLS = {"bash": ["--noprofile", "-i"], "zsh": ["-i"], "fish": ["-i"]}


def main(words: list[str]) -> int | str | None:
    """The exit code of a command, typed here."""
    try:
        return cli.main(words)
    except SystemExit as exc:
        return exc.code


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a ``geoflow`` on the path, and a store in it."""
    command = tmp_path / "bin" / "geoflow"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m geoflow "$@"\n')
    command.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.delenv("ZDOTDIR", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


class Typing:
    """A person at a shell."""

    def __init__(self, shell: str) -> None:
        self._child = pexpect.spawn(shell, SHELLS[shell], encoding="utf-8", timeout=30, dimensions=(24, 120))
        self._child.sendline("echo rea''dy")
        self._child.expect("ready")

    def tab(self, line: str, becomes: str) -> None:
        self._child.send(f"\x15{line}\t")
        self._child.expect_exact(becomes)

    def close(self) -> None:
        self._child.close(force=True)


@pytest.fixture(params=SHELLS)
def typing(request: pytest.FixtureRequest, home: Path) -> Iterator[Typing]:
    """Someone who has installed the completion, in each of the shells that are here."""
    if shutil.which(request.param) is None:
        pytest.skip(f"there is no {request.param} here")
    assert main(["run", "hello_world", "n=1", "--workers", "0"]) == 0
    assert main(["--install-completion", request.param]) == 0
    found = Typing(request.param)
    yield found
    found.close()


@pytest.mark.slow
def test_the_tab_key_completes_verbs_options_types_parameters_jobs_and_files(
    typing: Typing, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["status", "--json"]) == 0
    job_id = capsys.readouterr().out.split('"job_id": "')[1][:8]
    typing.tab("geoflow stat", "geoflow status ")
    typing.tab("geoflow run --on-ex", "geoflow run --on-existing ")
    typing.tab("geoflow run --on-existing res", "geoflow run --on-existing resume ")
    typing.tab("geoflow run hel", "geoflow run hello_world ")
    typing.tab("geoflow run hello_world n=3 me", "geoflow run hello_world n=3 message=")
    typing.tab(f"geoflow --store geoflow.db errors {job_id[:2]}", f"geoflow --store geoflow.db errors {job_id} ")
    Path("tiles.py").touch()
    typing.tab("geoflow retry --load til", "geoflow retry --load tiles.py ")


def test_what_is_installed_is_said_and_once_is_enough(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".bashrc").write_text("alias ll=ls")
    script = home / ".local/share/geoflow/completion.bash"
    for added in (f" Added a line to {home}/.bashrc that reads it.", ""):
        assert main(["--install-completion", "bash"]) == 0
        assert capsys.readouterr().out == f"Wrote {script}.{added} A new bash completes geoflow.\n"
        assert (home / ".bashrc").read_text() == "alias ll=ls\n. ~/.local/share/geoflow/completion.bash\n"
    assert main(["--show-completion", "bash"]) == 0
    assert capsys.readouterr().out.rstrip() == script.read_text().rstrip()


def test_the_shell_is_the_user_s_where_none_is_named_and_one_of_three(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELL", "/usr/local/bin/fish")
    assert main(["--install-completion"]) == 0
    assert (home / ".config/fish/completions/geoflow.fish").exists()
    capsys.readouterr()
    assert main(["--show-completion", "csh"]) == 2
    assert capsys.readouterr().err == (
        "geoflow: error: There is completion for bash, zsh, fish, and not for csh: name one.\n"
    )


def test_a_home_that_cannot_be_written_is_one_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".local").write_text("in the way")
    assert main(["--install-completion", "bash"]) == 2
    assert "cannot be written: " in capsys.readouterr().err


def test_S45_nothing_is_offered_that_a_shell_would_take_apart(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plain.py", "a b.py", "$(touch gone).py"):
        (home / name).touch()
    monkeypatch.setenv("COMP_WORDS", "geoflow run ./")
    answers = shells.answer("bash_complete", grammar.commands()).splitlines()
    assert "plain,./plain.py" in answers
    assert not any("touch" in answer or " " in answer for answer in answers)


def test_a_question_that_makes_no_sense_has_no_answer_and_no_traceback(home: Path) -> None:
    for words in ("geoflow --store gone.db status ", "geoflow status '", "geoflow run gone.py "):
        environment = {**os.environ, "_GEOFLOW_COMPLETE": "bash_complete", "COMP_WORDS": words}
        done = subprocess.run(["geoflow"], env=environment, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert not list(home.glob("*.db*"))
