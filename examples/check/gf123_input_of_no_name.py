"""A stage says that a parameter is an input, and has none of that name."""

from elevation import HANDLERS, Elevation

EXPECTED = ("GF123",)


class TileInputOfNoName(Elevation):
    job_type = "tile_input_of_no_name"
    stages = [Elevation.stages[0], {**Elevation.stages[1], "inputs": ["pth"]}, Elevation.stages[2]]


ALL_JOBS = {"tile_input_of_no_name": TileInputOfNoName}
ALL_HANDLERS = HANDLERS
