"""How many examples the property tests try: few in every run, many in `make test-long`.

The profile of Hypothesis says which: `short` by default, `long` by HYPOTHESIS_PROFILE=long or
`--hypothesis-profile=long`. A count that a test states is the short one; every other profile scales
it by its own default. A test without a count has the profile's.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SHORT, LONG = 20, 1_000
"""Examples of a test that does not say how many."""


def choose_profile() -> None:
    """Register the profiles and load the chosen one, before any test is imported."""
    for name, count in {"short": SHORT, "long": LONG}.items():
        settings.register_profile(
            name,
            # Not its profile for CI systems: every run draws anew. None is timed, because the time
            # of a draw depends on the load of the machine, not on the tested code.
            settings.get_profile("default"),
            max_examples=count,
            derandomize=False,
            print_blob=True,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))


def scaled(short: int, long: int | None = None) -> int:
    """Return how many examples to try where the short profile tries `short`.

    `long` bounds it where every example costs much, or is the count that is promised.
    """
    count = max(1, round(short * settings().max_examples / SHORT))
    return count if long is None else min(count, max(short, long))
