"""validate counts on a key to be there."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF312",)


class GridSearch(Elevation):
    job_type = "grid_search"

    @staticmethod
    def validate_job_parameters(params):
        return {"prefix": params["prefix"], "tiles": params["tiles"]}


ALL_JOBS = {"grid_search": GridSearch}
ALL_HANDLERS = HANDLERS
