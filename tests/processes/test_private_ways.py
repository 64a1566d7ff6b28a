"""What geoflow relies on of other packages without their promise; docs/design.md lists it, by the names of these."""

from __future__ import annotations

import functools
import inspect
import multiprocessing
import pickle
import sys
import threading
import types
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import context, forkserver, spawn, util
from pathlib import Path
from typing import Any

import cloudpickle
import pydantic
import pytest

from geoflow.engine import parts
from geoflow.executors.spawning import SlotContext
from geoflow.usercode.packing import pack, unpack

DESIGN = Path(__file__).parents[2] / "docs" / "design.md"


def test_cloudpickle_asks_a_subclass_of_its_pickler_first_also_about_code_objects() -> None:
    asked: list[type] = []

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            asked.append(type(obj))
            return super().reducer_override(obj)

    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec("def f(): return [x for x in ()]", namespace)
    with open("/dev/null", "wb") as nothing:
        Pickler(nothing).dump(namespace["f"])
    assert types.CodeType in asked, "cloudpickle no longer asks reducer_override about code: see pickling.CodePickler"


def test_python_makes_code_of_the_same_arguments_as_ever() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile("def f(): return 1", "<private>", "exec"), namespace)
    value = pack(namespace["f"]).value
    assert value is not None
    code = pickle.loads(value).__code__
    here = namespace["f"].__code__
    changed = f"Python {sys.version_info[:2]} has other arguments for types.CodeType: see pickling._code_arguments"
    assert (code.co_filename, code.co_code, [*code.co_lines()]) == ("<private>", here.co_code, [*here.co_lines()]), (
        changed
    )


def test_python_calls_what_is_registered_with_threading_before_it_waits_for_pools() -> None:
    changed = "Python's threading has no _register_atexit any more: see parts._close_all_at_exit"
    assert callable(getattr(threading, "_register_atexit", None)), changed
    assert parts._close_all_at_exit


def test_a_process_pool_has_the_parts_that_a_killed_worker_leaves_waiting() -> None:
    with ProcessPoolExecutor(1, mp_context=context.ForkServerContext()) as pool:
        pool.submit(int).result(60)
        changed = "concurrent.futures.process has no {} any more: see executors.worker_process"
        writer = getattr(getattr(pool, "_result_queue", None), "_writer", None)
        assert callable(getattr(writer, "close", None)), changed.format("_result_queue._writer")
        thread = getattr(pool, "_executor_manager_thread", None)
        assert isinstance(thread, threading.Thread), changed.format("_executor_manager_thread")


def test_a_process_pool_joins_the_process_that_its_context_made() -> None:
    made = SlotContext()
    with ProcessPoolExecutor(1, mp_context=made) as pool:
        pool.submit(int).result(60)
    changed = "concurrent.futures.process no longer joins its processes: see executors.spawning.SlotProcess.join"
    assert made.exit_code(30.0) == 0, changed


def test_multiprocessing_starts_a_process_from_what_spawn_prepares_and_by_a_fork_server_that_is_known() -> None:
    changed = "multiprocessing has no {} any more: see executors.spawning"
    assert callable(spawn.get_preparation_data), changed.format("spawn.get_preparation_data")
    assert hasattr(forkserver, "_forkserver"), changed.format("forkserver._forkserver")
    forkserver.ensure_running()
    server: Any = forkserver._forkserver
    assert isinstance(server._forkserver_pid, int), changed.format("_forkserver_pid")
    assert isinstance(server._forkserver_alive_fd, int), changed.format("_forkserver_alive_fd")
    assert isinstance(server._forkserver_address, str | bytes), changed.format("_forkserver_address")
    assert callable(server._stop), changed.format("_stop")


def test_multiprocessing_puts_its_sockets_into_the_folder_that_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = getattr(multiprocessing.current_process(), "_config", None)
    changed = "multiprocessing has no _config with a tempdir any more: see executors.spawning"
    assert isinstance(settings, dict), changed
    monkeypatch.setitem(settings, "tempdir", str(tmp_path))
    assert util.get_temp_dir() == str(tmp_path), changed


def test_functools_tells_a_cached_function_by_its_type() -> None:
    cached = functools.cache(len)
    assert isinstance(cached, functools._lru_cache_wrapper), "functools has another _lru_cache_wrapper: see packing"
    assert cached.cache_parameters().keys() == {"maxsize", "typed"}, "functools.cache_parameters() changed: see packing"


def test_pydantic_keeps_what_it_made_of_a_model_where_it_is_left_out_on_the_way() -> None:
    namespace: dict[str, Any] = {"__name__": "__main__", "BaseModel": pydantic.BaseModel}
    exec("class Window(BaseModel):\n    x: int = 0", namespace)
    made = {"__pydantic_validator__", "__pydantic_serializer__", "__pydantic_core_schema__"}
    assert made <= vars(namespace["Window"]).keys(), "pydantic keeps its parts elsewhere: see pickling._MADE_LAST"
    window = unpack(pack(namespace["Window"]))
    assert window(x="3").x == 3, "pydantic makes no model of what travelled: see packing"


def test_ipykernel_has_what_is_asked_of_a_kernel() -> None:
    kernel: Any = pytest.importorskip("ipykernel.ipkernel").IPythonKernel
    changed = "ipykernel's Kernel has no {} any more: see {}"
    assert hasattr(kernel, "_allow_stdin"), changed.format("_allow_stdin", "notebook.replay")
    if int(version("ipykernel").partition(".")[0]) >= 7:  # before, a click comes in the kernel's one thread
        text = inspect.getsource(sys.modules["ipykernel.kernelbase"])
        assert "_shell_parent" in text, changed.format("_shell_parent", "notebook.outputs.detached")


def test_the_table_in_the_design_names_each_of_these() -> None:
    table = DESIGN.read_text("utf-8")
    missing = [name for name in globals() if name.startswith("test_") and "the_table" not in name and name not in table]
    assert missing == []
