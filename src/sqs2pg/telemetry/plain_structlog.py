"""structlog without rich, which it would load to draw tracebacks: 60 modules, a tenth of a start.

We log no tracebacks. Where structlog or rich is loaded already, nothing is changed.
"""

from __future__ import annotations

import sys

__all__ = ["structlog"]

if "rich" in sys.modules:
    import structlog
else:
    sys.modules["rich"] = None  # type: ignore[assignment]  # makes `import rich` an ImportError
    try:
        import structlog
    finally:
        del sys.modules["rich"]
