"""A handler drafts its file in a folder that geoflow gives it."""

from elevation import HANDLERS, Elevation, merge_tiles

from geoflow import scratch

EXPECTED = ("GF125",)


def draft_tiles(params):
    (scratch() / "draft.txt").write_text(str(params["previous_results"]))
    return merge_tiles(params)


class TileFiles(Elevation):
    job_type = "tile_files"


ALL_JOBS = {"tile_files": TileFiles}
ALL_HANDLERS = {**HANDLERS, "merge_tiles": draft_tiles}
