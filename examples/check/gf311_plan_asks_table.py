"""The plan asks a table which tiles there are."""

import sqlite3

from elevation import HANDLERS, Elevation

EXPECTED = ("GF311",)


class Catalogue(Elevation):
    job_type = "catalogue"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        with sqlite3.connect(":memory:") as tiles:
            tiles.execute("SELECT 1").fetchall()
        return Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)


ALL_JOBS = {"catalogue": Catalogue}
ALL_HANDLERS = HANDLERS
