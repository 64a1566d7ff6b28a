"""The Tab key in bash, zsh and fish: the script of each, where it is put, and what it is answered."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ShellComplete,
    ZshComplete,
    split_arg_string,
)

from geoflow.commands.values import ASKED, UsageError

# Nothing is offered that a shell would take apart, or worse: the ids of tasks are whatever a job type makes them.
_PLAIN = re.compile(r"[\w./:=+@%,-]*")
_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' answer
    COMPREPLY=()
    for answer in $(env %(complete_var)s=bash_complete COMP_WORDS="${COMP_LINE:0:COMP_POINT}" "$1" 2>/dev/null); do
        case $answer in
            dir,*) compopt -o dirnames ;;
            file,*) compopt -o default ;;
            *) COMPREPLY+=("${answer#*,}") ;;
        esac
    done
    case ${COMPREPLY[0]} in *=|*/) compopt -o nospace ;; esac
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""
_ZSH = """\
#compdef %(prog_name)s
%(complete_func)s() {
    local -a lines values described open
    local kind value about
    (( $+commands[%(prog_name)s] )) || return 1
    lines=("${(@f)$(env %(complete_var)s=zsh_complete COMP_WORDS="${(j: :)words[1,CURRENT]}" \\
        %(prog_name)s 2>/dev/null)}")
    [[ $words[CURRENT] == -*=* ]] && compset -P '*='
    for kind value about in $lines; do
        case $kind in
            dir) _path_files -/ ;;
            file) _path_files -f ;;
            plain)
                if [[ $value == *[=/] ]]; then open+=($value)
                elif [[ $about == _ ]]; then values+=($value)
                else described+=("$value:$about"); fi ;;
        esac
    done
    (( $#described )) && _describe -V %(prog_name)s described
    (( $#values )) && compadd -V %(prog_name)s -a values
    (( $#open )) && compadd -S '' -V %(prog_name)s -a open
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then %(complete_func)s "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
    compdef %(complete_func)s %(prog_name)s
fi
"""


class _Asked(ShellComplete):
    """A shell that hands over the line up to the cursor as it is typed: each splits it in a way of its own.

    *file* is where its script is put, *startup* the file in which a line reads that, if one has to.
    """

    file: str
    startup: str | None = None

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        return words, words.pop() if words and not line[-1:].isspace() else ""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        items = super().get_completions(args, incomplete)
        return [item for item in items if item.type != "plain" or _PLAIN.fullmatch(item.value)]


class _Bash(_Asked, BashComplete):
    source_template, file, startup = _BASH, "~/.local/share/geoflow/completion.bash", "~/.bashrc"


class _Zsh(_Asked, ZshComplete):
    source_template, file, startup = _ZSH, "~/.local/share/geoflow/completion.zsh", "~/.zshrc"


class _Fish(_Asked, FishComplete):
    source_template = FishComplete.source_template.replace('split ","', 'split -m 1 ","')  # what is said may have some
    file = "~/.config/fish/completions/geoflow.fish"


SHELLS: Mapping[str, type[_Asked]] = {"bash": _Bash, "zsh": _Zsh, "fish": _Fish}


def script(name: str | None, command: click.Command) -> str:
    """The script that makes *name*, or else the user's shell, ask ``geoflow``, the *command*, at the Tab key."""
    return _made(_known(name), command).source()


def install(name: str | None, command: click.Command) -> str:
    """Put the script where the shell reads it; what was written where. To do it again changes nothing more."""
    name = _known(name)
    try:
        return " ".join([*_installed(_made(name, command)), f"A new {name} completes geoflow."])
    except OSError as exc:
        raise UsageError(f"{exc.filename} cannot be written: {exc.strerror}. --show-completion prints it.") from None


def _installed(shell: _Asked) -> Iterator[str]:
    file = Path(shell.file).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(shell.source(), "utf-8")
    yield f"Wrote {file}."
    if shell.startup is not None:
        startup, line = Path(shell.startup).expanduser(), f". {shell.file}"
        before = startup.read_text("utf-8").splitlines() if startup.exists() else []
        if line not in before:
            startup.write_text("\n".join([*before, line, ""]), "utf-8")
            yield f"Added a line to {startup} that reads it."


def answer(instruction: str, command: click.Command) -> str:
    """What a script is answered, which asks ``bash_complete`` or the like; nothing where something is wrong."""
    with contextlib.suppress(Exception), open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        return _made(instruction.partition("_")[0], command).complete()
    return ""


def _made(name: str, command: click.Command) -> _Asked:
    return SHELLS[name](command, {}, "geoflow", ASKED)


def _known(name: str | None) -> str:
    name = name or os.path.basename(os.environ.get("SHELL", ""))
    if name not in SHELLS:
        raise UsageError(f"There is completion for {', '.join(SHELLS)}, and not for {name or 'no shell'}: name one.")
    return name
