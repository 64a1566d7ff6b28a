"""validate lets all keys pass."""

from elevation import HANDLERS, TILES, Elevation

EXPECTED = ("GF305",)


class SoilMoisture(Elevation):
    job_type = "soil_moisture"

    @staticmethod
    def validate_job_parameters(params):
        return {"prefix": "n", "tiles": TILES, **params}


ALL_JOBS = {"soil_moisture": SoilMoisture}
ALL_HANDLERS = HANDLERS
