"""Ray tests run in an environment of their own: `make test-ray`. Elsewhere they are not there."""

from __future__ import annotations

import importlib.util

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("ray") is None else []
