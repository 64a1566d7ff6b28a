"""Import paths of 0.1 that users may have typed."""

from __future__ import annotations

import importlib
import sys

import pytest

import geoflow as gf


@pytest.mark.parametrize(("old", "new"), [("geoflow.default", "geoflow.api"), ("geoflow.flow", "geoflow.job_type")])
def test_an_import_path_of_the_version_before_works_and_says_which_it_is_now(
    old: str, new: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}: import that"):
        module = importlib.import_module(old)
    assert module is importlib.import_module(new), "there is one session of the process, not two"


def test_what_stayed_where_it_was_says_nothing(recwarn: pytest.WarningsRecorder) -> None:
    for name in ("geoflow.errors", "geoflow.testing", "geoflow.session"):
        importlib.import_module(name)
    assert issubclass(gf.errors.GeoflowError, Exception)
    assert not [warning for warning in recwarn if warning.category is DeprecationWarning]
