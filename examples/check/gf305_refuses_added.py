"""validate refuses the keys that it does not know."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF305",)


class UrbanHeat(Elevation):
    job_type = "urban_heat"

    @staticmethod
    def validate_job_parameters(params):
        if unknown := set(params) - {"prefix", "tiles"}:
            raise ValueError(f"unknown parameters: {', '.join(sorted(unknown))}")
        return Elevation.validate_job_parameters(params)


ALL_JOBS = {"urban_heat": UrbanHeat}
ALL_HANDLERS = HANDLERS
