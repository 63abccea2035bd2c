"""The native extension, if this installation has it and SQS2PG_NATIVE is not 0.

Place in the flow: it does the common case of body to line (`mapping/fast_path.py`). Everything
works without it: docs/decisions/0011.
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

API = 25
"""The extension must have this number: a checkout may have one built from older sources."""


def extension(environ: Mapping[str, str] = os.environ) -> ModuleType | None:
    """Return the extension; None if there is none with our API, or if it is turned off."""
    if EXTENSION is None or EXTENSION.API != API or environ.get("SQS2PG_NATIVE") == "0":
        return None
    return EXTENSION
