"""S44, S45: secrets and what a terminal obeys, put into every place that users fill, looked for in every output."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import geoflow as gf
from geoflow.commands import cli
from geoflow.errors import JobFailed, ParameterError

KINDS = (
    *("password", "passwd", "api", "access", "account", "client", "azure", "github", "passphrase", "credentials"),
    *("cookie", "bearer", "header", "sas", "signature", "login", "database", "list", "pair"),
)
SECRETS = {name: f"S3CR-{name}-{place}" for place, name in enumerate(KINDS)}
ESCAPES = (
    *("\x1b[2J", "\x1b]0;title\x07", "\x1b", "\x9b31m", "\x9d0;x\x9c", "\x07", "\x08", "\x7f", "\u202e", "\u2066"),
    *("\u200b", "\u061c"),
)
OBEYED = set("".join(ESCAPES)) - set("[]0123456789;Jtitlexm")


def parameters(**more: Any) -> dict[str, Any]:
    s = SECRETS
    return {
        "password": s["password"],
        "PASSWD": s["passwd"],
        "conf": {
            "api_key": s["api"],
            "AWS_SECRET_ACCESS_KEY": s["access"],
            "connection_string": f"Endpoint=https;AccountKey={s['account']}==;Suffix=x",
            "client_secret": s["client"],
            "azure": {"STORAGE_ACCOUNT_KEY": s["azure"], "deep": [[{"github_token": s["github"]}]]},
            "passphrase": s["passphrase"],
            "credentials": {"a": [s["credentials"], "}"]},
            "headers": {"Cookie": f"a=1; session={s['cookie']}", "Authorization": f"Bearer {s['bearer']}"},
            "x-api-key": s["header"],
        },
        "sas_token": f"sv=2020&sig={s['sas']}",
        "blob": f"https://acc.blob/c/b.tif?sv=2020&sig={s['signature']}&sp=r",
        "url": f"https://user:{s['login']}@host/x",
        "pg": f"postgresql://u:{s['database']}@h/db",
        "tokens": [s["list"]],
        "pairs": [["password", s["pair"]]],
        "text": "".join(f"a{escape}b" for escape in ESCAPES),
        **more,
    }


def work(params: dict[str, Any], context: Any) -> dict[str, Any]:
    print("printed", params, json.dumps(params))
    logging.getLogger("users").warning("logged %s", params, extra={"conf": params})
    if params["i"] == 0:
        raise ValueError(f"cannot log in with {params!r}, --password {params['password']} at {params['url']}")
    if params["i"] == 1:
        return {"success": False, "error": f"403 {json.dumps(params)} {params['text']}", "retryable": False}
    return {"success": True, "result": {"i": params["i"]}}


class Leaking:
    job_type = "leaking"
    description = "Leaks \x1b[2J\u202e"
    stages = [{"number": 1, "name": "work\x1b[2J\u202e", "task_type": "work", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params: dict[str, Any]) -> dict[str, Any]:
        if params.get("refused"):
            raise ValueError(f"bad parameters: {params!r} {params['text']}")
        return params

    @staticmethod
    def generate_job_id(params: dict[str, Any]) -> str:
        return hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()

    @staticmethod
    def create_tasks_for_stage(stage: int, job_params: Any, job_id: str, previous_results: Any = None) -> Any:
        if job_params.get("unplanned"):
            raise RuntimeError(f"no plan of {job_params!r}")
        return [
            {"task_id": f"t{i}\x1b[2J\u202e", "task_type": "work", "parameters": {**job_params, "i": i}}
            for i in job_params["which"]
        ]

    @staticmethod
    def finalize_job(context: Any = None) -> dict[str, Any]:
        if context.parameters.get("unfinished"):
            raise RuntimeError(f"finalize of {context.parameters!r}")
        return {"ok": True}


def outputs(folder: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[str, str]]:
    """Each place where something is shown, and what it shows. What is data is left out: results, frames and SQL."""
    session = gf.open(folder / "work.db", workers=0, display="none", max_retries=0)
    session.register(Leaking, {"work": work})
    with pytest.raises(ParameterError) as refused:
        session.submit("leaking", parameters(refused=True))
    yield "ParameterError", f"{refused.value} {refused.value.__cause__}"
    which: dict[str, dict[str, Any]] = {
        "failed": {"which": [0, 1, 2]},
        "completed": {"which": [2]},
        "unfinished": {"which": [2], "unfinished": True},
        "unplanned": {"which": [], "unplanned": True},
    }
    found = {name: session.run("leaking", parameters(**more)) for name, more in which.items()}
    for name, job in found.items():
        yield f"{name}: text", f"{job!r} {job} {job.error}"
        yield f"{name}: html", job._repr_html_()
        try:
            yield f"{name}: result", json.dumps(job.result())
        except JobFailed as exc:
            yield f"{name}: JobFailed", str(exc)
    task = found["failed"].task("t0")
    yield "task", repr(task)
    yield "session", session._repr_html_()
    yield "plan", f"{session.plan('leaking', parameters(which=[2]))!r}"
    yield "form", repr(session.form("leaking", **parameters(which=[2])))
    yield "check", repr(gf.check(Leaking, {"work": work}, **parameters(which=[0])))
    yield "log", (folder / "work.db.log").read_text()
    session.close()
    capsys.readouterr()
    for name, job in found.items():
        for verb in ("status", "tasks", "errors", "logs"):
            for more in ([], ["--json"], ["--traceback"]):
                if more != ["--traceback"] or verb == "errors":
                    cli.main([verb, job.id[:12], *more, "--store", str(folder / "work.db")])
                    shown = capsys.readouterr()
                    yield f"{name}: geoflow {verb} {' '.join(more)}", shown.out + shown.err
    for verb in ("jobs", "jobs --json", "resume", "sql select parameters, error from jobs"):
        cli.main([*verb.split(), "--store", str(folder / "work.db")])
        shown = capsys.readouterr()
        yield f"geoflow {verb}", shown.out + shown.err


def test_S44_S45_no_output_shows_a_secret_or_has_what_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    looked_at = 0
    for name, shown in outputs(tmp_path, capsys):
        looked_at += 1
        assert [kind for kind, secret in SECRETS.items() if secret in shown] == [], name
        assert sorted(set(shown) & OBEYED) == [], name
        assert shown, name
    assert looked_at > 40
