"""What can be measured, by name; the order is that of the table."""

from collections.abc import Callable

from benchmarks.forecast import forecast
from benchmarks.loop import loop
from benchmarks.parts.frame import frame
from benchmarks.parts.latency import latency
from benchmarks.parts.overhead import overhead, store
from benchmarks.parts.resume import resume
from benchmarks.parts.run import Run
from benchmarks.parts.stages import stages
from benchmarks.parts.starting import cold, imports, memory
from benchmarks.parts.writes import writes

__all__ = ["PARTS", "Run"]

PARTS: dict[str, Callable[[Run], None]] = {
    "overhead": overhead,
    "store": store,
    "stages": stages,
    "latency": latency,
    "cold": cold,
    "import": imports,
    "memory": memory,
    "resume": resume,
    "writes": writes,
    "frame": frame,
    "forecast": forecast,
    "loop": loop,
}
