"""Every breakage of `make breakages` still applies to the code it breaks."""

from __future__ import annotations

import pytest

from tests.breakages.__main__ import unfit
from tests.breakages.table import BREAKAGES, Breakage


@pytest.mark.parametrize("breakage", BREAKAGES, ids=lambda one: one.what)
def test_a_breakage_applies(breakage: Breakage) -> None:
    """Its text stands once in its file, and its tests are there."""
    assert unfit(breakage) == ""
