"""finalize counts on each task to have a result."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF341",)


class RiverNetwork(Elevation):
    job_type = "river_network"

    @staticmethod
    def finalize_job(context=None):
        return {"results": [task.result_data["result"] for task in context.task_results]}


ALL_JOBS = {"river_network": RiverNetwork}
ALL_HANDLERS = HANDLERS
