"""Time zones by their names in the settings. The database of zones is read here, at the start.

Python looks for it in the system's folders, then in the package `tzdata`. UTC and offsets need no
database.
"""

from __future__ import annotations

import re
from datetime import UTC, timedelta, timezone, tzinfo

from sqs2pg.errors import SettingsError

_OFFSET = re.compile(r"([+-])([0-9]{2}):([0-9]{2})\Z")
_OF_THE_MACHINE = {"localtime", "posixrules", "Factory"}


def zone_of(name: str) -> tzinfo:
    """Return a time zone: UTC, an offset such as +02:00, or a name of the IANA database.

    Raises SettingsError `unknown_timezone`.
    """
    if name == "UTC":
        return UTC
    if match := _OFFSET.match(name):
        hours, minutes = int(match[2]), int(match[3])
        if hours <= 23 and minutes <= 59:
            offset = timedelta(hours=hours, minutes=minutes)
            return timezone(-offset if match[1] == "-" else offset)
    import zoneinfo  # only here: most settings name no zone

    try:
        if name not in _OF_THE_MACHINE:
            return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    known = zoneinfo.available_timezones()
    raise SettingsError(
        f"there is no time zone {name!r}",
        code="unknown_timezone",
        hint="write a name of the IANA database such as Europe/Berlin, UTC, or an offset such as "
        "+02:00"
        if known
        else "this machine has no database of time zones: install the package tzdata, or write UTC "
        "or an offset such as +02:00",
    )
