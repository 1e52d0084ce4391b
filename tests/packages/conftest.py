"""Tests of what is packaged that take minutes: `make packaging-test`. They share what the integration tests have."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))
