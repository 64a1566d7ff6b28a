"""@staticmethod was forgotten."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF103",)


class Hillshade(Elevation):
    job_type = "hillshade"

    def finalize_job(self, context=None):
        return {"tiles": len(context.task_results)}


ALL_JOBS = {"hillshade": Hillshade}
ALL_HANDLERS = HANDLERS
