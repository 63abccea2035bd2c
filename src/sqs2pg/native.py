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

API = 33
"""The extension must have this number: a checkout may have one built from older sources."""


KEPT_BYTES = 64 * 2**20
"""Of each thread, for the batches to come: some times what a batch of 20,000 lines needs."""


def extension(environ: Mapping[str, str] = os.environ) -> ModuleType | None:
    """Return the extension; None if there is none with our API, or if it is turned off."""
    if EXTENSION is None or EXTENSION.API != API or environ.get("SQS2PG_NATIVE") == "0":
        return None
    return EXTENSION


def keep_memory() -> None:
    """Keep memory that a batch frees for the next one, in a process that writes large batches.

    The C library would give it back to the system. A fifth of such a process's CPU time then went
    into mapping the same pages again.
    """
    if (native := extension()) is not None:
        native.keep_memory(KEPT_BYTES)
