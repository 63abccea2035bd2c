"""Document values: how what msgspec found in one place of many documents becomes texts.

Part of the usual way of `decode.py`. No I/O here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.document_batch import WRONG, Column
from sqs2pg.mapping.document_types import Place
from sqs2pg.mapping.documents import Normalize
from sqs2pg.mapping.json_slices import Slice, raw_text

_BOOLEANS: Mapping[bool | None, str | None] = {None: None, True: "true", False: "false"}


class Reading:
    """How the values of one place become texts."""

    def __init__(self, place: Place, normalize: Normalize) -> None:
        """`normalize` takes the slices that are left undecoded."""
        self._read = place.reader()
        self._leaf = place.leaf
        self._rest = place.rest
        self._normalize = normalize
        self.may_be_wrong = place.leaf == "slice"
        """Else msgspec has checked the kind."""

    def __call__(self, scopes: Sequence[Any]) -> Column:
        """Return the text in each document or element."""
        values = self._read(scopes)
        if self._leaf == "text":
            return values
        if self._leaf == "boolean":
            return list(map(_BOOLEANS.__getitem__, values))
        texts = ["" if raw is None else raw_text(raw) for raw in values]
        known = {text: self._text(text) for text in set(texts)}
        return [known[text] for text in texts]

    def _text(self, text: str) -> str | PermanentFault | None:
        if text in ("", "null"):
            return None
        try:
            value = Slice(text).read(self._rest)
            return None if value is None else self._normalize(value.text)
        except PermanentFault:
            return WRONG
