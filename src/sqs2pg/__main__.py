"""`sqs2pg` and `python -m sqs2pg`: the command line."""

from __future__ import annotations

import gc
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit. Ctrl-C while its modules load ends it without a traceback."""
    gc.disable()  # to load modules makes no garbage; the command line turns it on again
    try:
        from sqs2pg.cli import main as run
    except KeyboardInterrupt:
        raise SystemExit(130) from None  # nothing was begun, so there is nothing to say
    run()


if __name__ == "__main__":
    main()
