"""How long to wait before the next try after a transient fault."""

from __future__ import annotations

import random

BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 20.0


def backoff_s(attempt: int) -> float:
    """Return the wait before try `attempt` (from 1): exponential, with full jitter.

    Source: AWS Architecture Blog, "Exponential Backoff And Jitter".
    """
    return random.uniform(0, min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** min(attempt, 16)))  # noqa: S311  not a secret
