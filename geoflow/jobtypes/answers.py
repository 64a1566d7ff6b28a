"""What user code's answers mean: a return value, a plan, an exception."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from itertools import chain
from operator import attrgetter
from typing import Any

from geoflow.core.models import Category, Failure
from geoflow.core.retry import RetryPolicy, classify, is_retryable, lineage
from geoflow.errors import ContractViolationError, UnstorableValue
from geoflow.jobtypes.contract import normalise
from geoflow.support.attempt import attempts
from geoflow.support.exception_names import name_of
from geoflow.support.jsonable import infinities_in, stored, to_json
from geoflow.support.parcel import IN_MEMORY, Spool
from geoflow.support.text import exact, human_bytes
from geoflow.usercode.origin import is_ours, is_users

MAX_TASK_ID = 100
LARGE = 256_000  # characters of a result: the store, and each plan or finalize that gets it, has to hold it


def outcome(value: Any, task_type: str, limit: float | None = None) -> tuple[str | None, Failure | None]:
    """A handler's return value as JSON text, or as the failure that it is.

    ``UnstorableValue`` for what has no JSON form, or one of more than *limit* bytes; one that is `LARGE`, and an
    infinity in it, is remarked on where the handler prints.
    """
    success = value.get("success") if isinstance(value, dict) else None
    if success is True:
        text = to_json(value)
        if len(text) > LARGE:
            _weigh(text, limit)
        if "null" in text and (remark := remark_on_infinities(value, text)):
            print(remark, file=sys.stderr)
        return text, None
    if success is not False:
        raise ContractViolationError(
            f"The handler of {task_type!r} must return a dict with 'success' of True or False; it returned "
            f"{shown(value)}."
        )
    retryable = value.get("retryable", True) is not False
    said, named = value.get("error"), value.get("error_type")
    error = exact(said) if said is not None else ""
    category = Category.BUSINESS if retryable else Category.PERMANENT
    return None, Failure(
        error or "the handler returned success: False and no error",
        exact(named) if isinstance(named, str) else "ReturnedFailure",
        str(category),
        retryable,
    )


def remark_on_infinities(value: Any, text: str, where: str = "result") -> str | None:
    """What is to be said of *value* where its JSON *text* has null for an infinity, so that this is not unseen."""
    places = infinities_in(value, text, where)
    more = f" (and {len(places) - 1:,} more)" if len(places) > 1 else ""
    told = f"is infinite{more}, which JSON has no number for: it is stored as null. Return a large number, or text"
    return f"{places[0]} {told}." if places else None


def _weigh(text: str, limit: float | None) -> None:
    size = len(text.encode())
    what = f"The result is {human_bytes(size)} of JSON"
    if limit is not None and size > limit:
        raise UnstorableValue(
            f"{what}, and results may be {human_bytes(int(limit))} (the setting result_limit, in megabytes): keep "
            "what is large in it by gf.save, or as a file with gf.output, and return the reference or the path."
        )
    told = f"{what}, which the store and all later stages have to hold: gf.save keeps large objects as files."
    print(told, file=sys.stderr)


def attempted(handler: Callable[..., Any], *arguments: Any) -> Any:
    """What *handler* returns, called as an attempt is: what it wrote with `gf.output` is there if that is success."""
    with attempts() as ends:
        returned, result = handler(*arguments), None
        if ends:
            with contextlib.suppress(ContractViolationError, UnstorableValue):
                result, _ = outcome(returned, "")
        while ends:
            ends.pop()(result)
        return returned


def shown(value: Any) -> str:
    try:
        text = repr(value)
    except Exception as exc:  # a user's __repr__ may raise anything
        text = f"an object whose repr raises {type(exc).__name__}"
    return f"{type(value).__name__}: {exact(text, 200)}"


def checked_plan(
    made: Any, stage: int, task_types: tuple[str, ...], spool: Spool | None = None
) -> tuple[list[str], list[str], list[str], list[str | None]]:
    """The plan's ids, types, parameters and metadata as text; an error names the stage, the task and the key.

    The last two go to *spool* where they are long: first one task's parameters, then its metadata.
    """
    if not isinstance(made, list):
        raise ContractViolationError(
            f"create_tasks_for_stage of stage {stage} must return a list of dicts; it returned {shown(made)}.",
            code="GF320",
        )
    ids: list[str] = []
    types: list[str] = []
    texts: list[str] = []
    notes: list[str | None] = []
    seen: set[str] = set()
    length = 0
    known: dict[str, str] = {}  # from the spelling in the plan to the registered one
    for index, task in enumerate(made):
        if not isinstance(task, dict):
            raise _refusal("GF320", stage, index, f" is not a dict but {shown(task)}.")
        try:
            task_id, task_type, parameters = task["task_id"], task["task_type"], task["parameters"]
        except KeyError as exc:
            keys = sorted(map(str, task))
            raise _refusal("GF320", stage, index, f" has no {exc.args[0]!r}; its keys are {keys}.") from None
        if not isinstance(task_id, str) or not 1 <= len(task_id) <= MAX_TASK_ID:
            must = f": task_id must be a text of 1 to {MAX_TASK_ID} characters, not {shown(task_id)}."
            raise _refusal("GF321", stage, index, must)
        if task_id in seen:
            raise _refusal("GF321", stage, index, f": the task_id {task_id!r} is there twice in this stage.")
        seen.add(task_id)
        if task_type not in known:
            named = normalise(task_type) if isinstance(task_type, str) else None
            if named not in task_types:
                there = f"for the task_type {task_type!r}; there are {', '.join(task_types)}."
                raise _refusal("GF112", stage, index, f" ({task_id!r}): no handler is registered {there}")
            known[task_type] = named
        if not isinstance(parameters, dict):
            must = f"parameters must be a dict, not {shown(parameters)}."
            raise _refusal("GF320", stage, index, f" ({task_id!r}): {must}")
        try:
            text = stored(parameters, "parameters")
            note = to_json(task["metadata"], where="metadata") if task.get("metadata") is not None else None
        except UnstorableValue as exc:
            raise _refusal("GF308", stage, index, f" ({task_id!r}): {exc}") from None
        ids.append(task_id if type(task_id) is str and task_id.isascii() and task_id.isprintable() else exact(task_id))
        types.append(known[task_type])
        texts.append(text)
        notes.append(note)
        length += len(text) + (len(note) if note is not None else 0)
        if length > IN_MEMORY and spool is not None:
            length = _spooled(spool, texts, notes)
    if spool is not None and spool.used:
        _spooled(spool, texts, notes)
    return ids, types, texts, notes


def _refusal(code: str, stage: int, index: int, why: str) -> ContractViolationError:
    return ContractViolationError(f"Stage {stage}, task {index}{why}", code=code)


def _spooled(spool: Spool, texts: list[str], notes: list[str | None]) -> int:
    spool.take(chain.from_iterable(zip(texts, notes, strict=True)))
    texts.clear()
    notes.clear()
    return 0


def describe(exc: BaseException, policy: RetryPolicy, own: tuple[str, ...]) -> Failure:
    """An exception as text, with its category. Never raises, whatever the exception does."""
    kind = type(exc)
    if policy.permanent or policy.transient:
        policy = policy.renamed(_real_name)
    category = classify(lineage(kind, _is_own(own)), policy)
    if isinstance(exc, UnstorableValue):  # whatever the policy says of a TypeError: the same code returns the same
        category = Category.PERMANENT
    message = exact(exc)
    if isinstance(exc, SystemExit):
        message = f"the code called sys.exit({message})"
    retryable = is_retryable(category)
    return Failure(message or exact(kind.__name__), exact(kind.__name__), str(category), retryable, _formatted(exc))


def _real_name(name: str) -> str:
    """The name of a class, of which *name* may be one that a package has of it: ``requests.ConnectionError``."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        # What has not been imported here has raised nothing.
        if module := sys.modules.get(".".join(parts[:length])):
            with contextlib.suppress(Exception):  # a module may look for its names by code of its own
                if isinstance(found := attrgetter(".".join(parts[length:]))(module), type):
                    return name_of(found)
            break
    return name


def _is_own(own: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether a module is the job type's own: of its top-level package, or not installed as a library."""

    def is_own(module: str) -> bool:
        top = module.partition(".")[0]
        if top in own or top in ("__main__", "__mp_main__"):
            return True
        path = getattr(sys.modules.get(module), "__file__", None) or ""
        return bool(path) and is_users(path)

    return is_own


def _formatted(exc: BaseException) -> str | None:
    """The traceback from the user's first frame on, or None when no user code was involved."""
    frames = exc.__traceback__
    while frames is not None and is_ours(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    if frames is None and exc.__cause__ is None:
        return None
    try:
        return exact("".join(traceback.format_exception(type(exc), exc, frames)), 32_000)
    except BaseException as inner:  # RecursionError, MemoryError, a __str__ that raises in the cause chain
        return f"(the traceback could not be made: {type(inner).__name__})"
