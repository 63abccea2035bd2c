"""The tally of unknown fields: what this process has counted and not recorded yet.

It holds names, which may be personal: they are for `postgres/unknown_fields.py` alone, never for a
metric or a log.
"""

from __future__ import annotations

from collections.abc import Mapping

PLACES_MAX = 2_000
"""Different paths and types that are held. Of further ones only the type is counted."""

Counts = dict[tuple[str, str], int]
"""By path and JSON type; the path is "" where it is not known."""


class UnknownTally:
    """Counts until somebody takes them."""

    def __init__(self) -> None:
        self._counts: Counts = {}

    def add(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Add what a batch had, or what was taken and could not be recorded."""
        for (path, type_), count in counts.items():
            place = (path, type_)
            if place not in self._counts and len(self._counts) >= PLACES_MAX:
                place = ("", type_)
            self._counts[place] = self._counts.get(place, 0) + count

    def take(self) -> Counts:
        """Return what was counted since the last call."""
        counts, self._counts = self._counts, {}
        return counts

    def __len__(self) -> int:
        return len(self._counts)

    def __repr__(self) -> str:
        return f"UnknownTally({len(self._counts)})"
