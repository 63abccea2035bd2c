"""The native extension, where this installation has it and SQS2PG_NATIVE is not 0.

Place in the flow: beside the parts whose common case it does: body to line
(`mapping/fast_path.py`), and the usual reply and the usual delete (`sqs/`). Nothing depends on it:
docs/decisions/0011.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import ModuleType

try:
    from sqs2pg import _native
except ImportError:
    EXTENSION: ModuleType | None = None
else:
    EXTENSION = _native

API = 6
"""What the extension must say it is: a checkout may hold one of an older source."""


def extension(environ: Mapping[str, str] = os.environ) -> ModuleType | None:
    """Return the extension; None where there is none of our API, or it is turned off."""
    if EXTENSION is None or EXTENSION.API != API or environ.get("SQS2PG_NATIVE") == "0":
        return None
    return EXTENSION
