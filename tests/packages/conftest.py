"""Tests of what is packaged that take minutes: `make packaging-test`. They share what the integration tests have."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

from clean_system import ROOT, made, sources  # noqa: E402


@pytest.fixture(scope="session")
def deb(tmp_path_factory):
    """$TAILRACE_DEB: one that was built already."""
    if os.environ.get("TAILRACE_DEB"):
        return pathlib.Path(os.environ["TAILRACE_DEB"]).resolve()
    return made("deb", sources(tmp_path_factory.mktemp("first") / "a", ROOT))
