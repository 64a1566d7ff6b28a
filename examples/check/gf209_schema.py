"""The schema says bands, validate reads band."""

from elevation import HANDLERS, TILES, Elevation

EXPECTED = ("GF209",)


class BandRatio(Elevation):
    job_type = "band_ratio"
    parameters_schema = {"bands": {"type": "list", "default": [4, 8]}}

    @staticmethod
    def validate_job_parameters(params):
        return {"prefix": "n", "tiles": TILES, "band": params.get("band", [4, 8])}


ALL_JOBS = {"band_ratio": BandRatio}
ALL_HANDLERS = HANDLERS
