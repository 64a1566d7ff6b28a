"""Nothing says which parameters it could be tried with."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF901",)


class AreaOfInterest(Elevation):
    job_type = "area_of_interest"
    parameters_schema = {"tiles": {"type": "list", "required": True}}

    @staticmethod
    def validate_job_parameters(params):
        if not params.get("tiles"):
            raise ValueError("tiles must be a list of names")
        return {"prefix": "n", "tiles": params["tiles"]}


ALL_JOBS = {"area_of_interest": AreaOfInterest}
ALL_HANDLERS = HANDLERS
