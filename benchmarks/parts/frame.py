"""How long the results of a large job take to become a DataFrame."""

import sqlite3
from contextlib import closing

import pandas as pd

import geoflow as gf
from benchmarks import jobs
from benchmarks.parts.run import Run
from benchmarks.tasks import WORKERS, alternated, timed


def frame(run: Run) -> None:
    """the results of 100,000 tasks as a DataFrame, beside pandas.read_sql of the same rows"""
    path = run.folder / "work.db"
    with gf.open(path, workers=WORKERS, display="none") as session:
        session.register(jobs)
        job = session.submit("rows", n=run.many).wait()

        def read_sql() -> pd.DataFrame:
            with closing(sqlite3.connect(path)) as connection:
                return pd.read_sql("SELECT * FROM tasks", connection)

        assert len(job.tasks()) == len(read_sql()) == run.many
        for turn in range(run.rounds):
            found = alternated(
                turn, {"job.tasks()": lambda: timed(job.tasks), "pandas.read_sql": lambda: timed(read_sql)}
            )
            for name, seconds in found.items():
                run.figures.add("frame", f"{run.many:,} rows, {name}", seconds, "s")
            ratio = found["job.tasks()"] / found["pandas.read_sql"]
            run.figures.add("frame", "job.tasks() / pandas.read_sql", ratio, at_most=0.3)
