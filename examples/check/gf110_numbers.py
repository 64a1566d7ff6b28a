"""Stages are counted from 0."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF110",)


class StacItems(Elevation):
    job_type = "stac_items"
    stages = [{**stage, "number": number} for number, stage in enumerate(Elevation.stages)]


ALL_JOBS = {"stac_items": StacItems}
ALL_HANDLERS = HANDLERS
