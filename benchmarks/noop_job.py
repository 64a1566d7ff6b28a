"""A job type of tasks that do nothing, for measuring what the engine itself costs."""

from geoflow.jobtypes.contract import job_id_for


def noop(params):
    return {"success": True}


class Noop:
    job_type = "noop"
    description = "n tasks that do nothing."
    stages = [{"number": 1, "name": "noop", "task_type": "noop", "parallelism": "single"}]

    @staticmethod
    def validate_job_parameters(params):
        return {**params, "n": int(params["n"])}

    @staticmethod
    def generate_job_id(params):
        return job_id_for("noop", params)

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        return [
            {"task_id": f"{index:07d}", "task_type": "noop", "parameters": {"index": index}}
            for index in range(job_params["n"])
        ]

    @staticmethod
    def finalize_job(context=None):
        return {"tasks": len(context.task_results)}


ALL_JOBS = {"noop": Noop}
ALL_HANDLERS = {"noop": noop}
