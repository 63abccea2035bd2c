#!/usr/bin/env bash
# cron-converter 2.0.2, cron-validator 1.0.8 and pycron 3.3.0 (PyPI): for the first two "0 0 13 * 5" fires only
# on a Friday the 13th, and for the third Sunday as 7 never comes.
#
# Expected: on every 13th and on every Friday. If both fields are restricted, a day that matches either one
#   counts. In crontabs 7 is Sunday too, as 0 is.
#   Sources: POSIX.1-2017, crontab, "INPUT FILES" (if both day fields are specified, any day matching either);
#   crontab(5) of Vixie cron ("0-7 (0 or 7 is Sunday, or use names)", and its note on both day fields); the
#   packages' summaries: "Cron string parser and scheduler", "Unix cron implementation by Python", "Simple
#   cron-like parser".
# Seen: cron-converter and cron-validator want both, so the schedule fires once in September 2024 instead of
#   four times. pycron and cronex 0.1.3.1 know the rule. For pycron "* * * * 7" is accepted and never matches,
#   and 5-7 leaves Sunday out; cron-validator calls a 7 an invalid expression. cronsim 2.8 gives the days that
#   cron does.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check \
  cron-converter==2.0.2 cron-validator==1.0.8 pycron==3.3.0 cronex==0.1.3.1 cronsim==2.8
"$folder/env/bin/python" -W ignore - <<'PY'
import datetime
import sys

import cronex
import cronsim
import pycron
from cron_converter import Cron
from cron_validator import CronValidator

DAYS = [datetime.datetime(2024, 9, day) for day in range(1, 31)]
BEFORE = DAYS[0] - datetime.timedelta(seconds=1)


def until_october(times):
    return list(iter(lambda: time.day if (time := next(times)).month == 9 else None, None))


def validator(expression):
    try:
        return [time.day for time in CronValidator.get_execution_time(expression, DAYS[0], DAYS[-1])]
    except ValueError:
        return "an error"


READERS = {
    "cronsim": lambda text: until_october(cronsim.CronSim(text, BEFORE)),
    "cronex": lambda text: [
        day.day for day in DAYS if cronex.CronExpression(text).check_trigger((2024, 9, day.day, 0, 0))
    ],
    "pycron": lambda text: [day.day for day in DAYS if pycron.is_now(text, day)],
    "cron-converter": lambda text: until_october(iter(Cron(text).schedule(BEFORE).next, None)),
    "cron-validator": validator,
}
RIGHT = {
    "0 0 13 * 5": [6, 13, 20, 27],
    "0 0 * * 7": [1, 8, 15, 22, 29],
    "0 0 * * 5-7": [1, 6, 7, 8, 13, 14, 15, 20, 21, 22, 27, 28, 29],
}
DESCRIBED = {
    ("cron-converter", "0 0 13 * 5"): [13],
    ("cron-validator", "0 0 13 * 5"): [13],
    ("cron-validator", "0 0 * * 7"): "an error",
    ("cron-validator", "0 0 * * 5-7"): "an error",
    ("pycron", "0 0 * * 7"): [],
    ("pycron", "0 0 * * 5-7"): [6, 7, 13, 14, 20, 21, 27, 28],
}
as_described = True
for expression, right in RIGHT.items():
    print(f"{expression} (expected {right})")
    for name, read in READERS.items():
        seen = read(expression)
        print(f"  {name}: {seen}")
        as_described &= seen == DESCRIBED.get((name, expression), right)
sys.exit(0 if as_described else 1)
PY
