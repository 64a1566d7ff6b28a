"""Data sets by name: found where they are installed, refused with the line to type where they are not."""

import hashlib
import sys
from pathlib import Path

import pytest

from geoflow import datasets
from geoflow.core.models import Category
from geoflow.core.retry import RetryPolicy, classify, lineage
from geoflow.errors import ResourceNotFoundError


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Makes a package of one file, and a data set of it under the name that is given."""

    def make(name: str, contents: bytes, **changed) -> Path:
        (tmp_path / "has_data").mkdir()
        (tmp_path / "has_data" / "__init__.py").write_text("raise SystemExit('imported')")
        file = tmp_path / "has_data" / "area.shp"
        file.write_bytes(contents)
        monkeypatch.syspath_prepend(str(tmp_path))
        made = datasets.Dataset("an area", "CC0-1.0", "has_data", "has-data==1.0*", "area.shp", "")._replace(**changed)
        monkeypatch.setattr(datasets, "CATALOGUE", {name: made})
        return file

    return make


def test_a_data_set_is_found_by_its_name_and_its_package_is_not_imported(pretend):
    file = pretend("area", b"abc", sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    assert datasets.path("area") == file
    assert "has_data" not in sys.modules


def test_a_data_set_with_other_contents_than_were_tested_is_refused(pretend):
    pretend("area", b"abd", sha256="ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(ResourceNotFoundError, match=r"not what was tested.*pip install --no-deps has-data==1\.0$"):
        datasets.path("area")


def test_a_data_set_that_lacks_a_file_which_belongs_to_it_is_refused(pretend):
    pretend("area", b"abc", beside=(".dbf",))
    with pytest.raises(ResourceNotFoundError, match=r"has_data has no area\.shp with \.dbf"):
        datasets.path("area")


def test_a_data_set_that_is_not_installed_says_how_to_install_it_and_is_not_tried_again(pretend):
    pretend("area", b"abc", package="has_no_data_anywhere")
    with pytest.raises(ResourceNotFoundError, match=r"pip install --no-deps has-data==1\.0$") as told:
        datasets.path("area")
    assert classify(lineage(type(told.value), lambda module: False), RetryPolicy()) is Category.PERMANENT


def test_a_data_set_of_a_debian_package_is_found_where_it_was_unpacked(pretend, monkeypatch, tmp_path):
    pretend("area", b"abc", package=datasets.DEBIAN, install="has-data", file="usr/share/no/such/area.shp")
    with pytest.raises(ResourceNotFoundError, match=r"has-data is not installed.*apt-get download has-data && dpkg"):
        datasets.path("area")
    (tmp_path / "data/usr/share/no/such").mkdir(parents=True)
    file = tmp_path / "data/usr/share/no/such/area.shp"
    file.write_bytes(b"abc")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "data"))
    with pytest.raises(ResourceNotFoundError, match="not what was tested"):
        datasets.path("area")
    ours = datasets.CATALOGUE["area"]._replace(sha256=hashlib.sha256(b"abc").hexdigest())
    monkeypatch.setattr(datasets, "CATALOGUE", {"area": ours})
    assert datasets.path("area") == file


def test_a_name_that_is_no_data_set_is_told_all_names():
    with pytest.raises(ValueError, match=r"no data set 'county'.*counties, states"):
        datasets.path("county")


@pytest.mark.parametrize("name", datasets.names())
def test_each_data_set_has_the_hash_that_was_tested(name):
    try:
        assert datasets.path(name).is_file()
    except ResourceNotFoundError as exc:
        if "is not installed" not in str(exc):
            raise
        pytest.skip(str(exc))
