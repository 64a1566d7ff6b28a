"""validate looks into the folder."""

from pathlib import Path

from elevation import HANDLERS, Elevation

EXPECTED = ("GF310",)


class FolderIngest(Elevation):
    job_type = "folder_ingest"

    @staticmethod
    def validate_job_parameters(params):
        folder = Path(params.get("prefix", "n")).absolute().parent
        if not list(folder.iterdir()) and params.get("tiles") == []:
            raise ValueError(f"{folder} is empty")
        return Elevation.validate_job_parameters(params)


ALL_JOBS = {"folder_ingest": FolderIngest}
ALL_HANDLERS = HANDLERS
