"""Each task is given the outline of the whole country."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF323",)


class CountryClip(Elevation):
    job_type = "country_clip"

    @staticmethod
    def create_tasks_for_stage(stage, job_params, job_id, previous_results=None):
        plan = Elevation.create_tasks_for_stage(stage, job_params, job_id, previous_results)
        outline = [[7.0 + step / 10_000, 46.0] for step in range(20_000)]
        return [{**task, "parameters": {**task["parameters"], "outline": outline}} for task in plan]


ALL_JOBS = {"country_clip": CountryClip}
ALL_HANDLERS = HANDLERS
