"""Checks of what every command needs: settings and versions."""

from __future__ import annotations

import os
import sys

from sqs2pg import settings as settings_module
from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.doctor.finding import Finding, ok, warn
from sqs2pg.cli.options import counted
from sqs2pg.cli.versions import versions
from sqs2pg.status.access import Access


async def check_settings(context: Context) -> Finding:
    """Whether the settings can be read and fit together, the status server's token too."""
    settings = context.load_settings()
    Access.from_settings(settings.status)
    if context.config:
        origin = str(context.config)
    elif os.environ.get(settings_module.CONFIG_VARIABLE):
        origin = os.environ[settings_module.CONFIG_VARIABLE]
    elif settings_module.DEFAULT_FILE.is_file():
        origin = str(settings_module.DEFAULT_FILE)
    else:
        origin = "no file, defaults and environment"
    mapping = (
        f"{counted(len(settings.fields), 'field')}"
        if settings.field or settings.routed
        else "the built-in mapping"
    )
    return ok("settings", f"{origin}: {mapping} into {settings.table_names}")


async def check_versions(_context: Context) -> Finding:
    """Report the versions in use; a package newer than the tested one is no failure."""
    detail = ", ".join(versions())
    if sys.flags.optimize:
        return warn("versions", f"{detail}; run with -O", "run Python without -O: it drops checks")
    return ok("versions", detail)
