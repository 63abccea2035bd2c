#!/usr/bin/env bash
# aws-cron-parser 1.1.12 (npm) and pyawscron 1.0.7 (PyPI): a schedule for the 31st, or for 29 February, goes
# wrong in the months that lack that day.
#
# Expected: cron(0 0 31 * ? *) fires on the 31st of the months that have one, and 0 0 29 2 in leap years.
#   Source: Amazon EventBridge User Guide, "Cron expressions reference" (day of month 1-31; L is the wildcard
#   for the last day). aws-cron-parser's README: all of that specification is supported.
# Seen: aws-cron-parser makes 31 April with JavaScript's Date, which is 1 May: between 31 March and 31 May it
#   gives an occurrence on 1 May, and 29 February is on 1 March in three years out of four. pyawscron, its
#   port, raises ValueError ("day is out of range for month") when it comes to such a month. What computes the
#   next run, or looks for missed ones, expects runs that EventBridge never makes. cronsim 2.8 finds the right
#   days.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check pyawscron==1.0.7 cronsim==2.8
npm install --prefix "$folder/node" --silent --no-audit --no-fund aws-cron-parser@1.1.12 >"$folder/npm.log"
cat >"$folder/node/run.js" <<'JS'
const parser = require("aws-cron-parser");
let time = new Date("2025-03-01T00:00:00Z");
const cron = parser.parse(process.argv[2]);
const days = [];
for (let i = 0; i < 3; i++) {
  time = parser.next(cron, time);
  days.push(time.toISOString().slice(0, 10));
}
console.log(days.join(" "));
JS
"$folder/env/bin/python" - "$folder/node/run.js" <<'PY'
import datetime
import itertools
import subprocess
import sys

from cronsim import CronSim
from pyawscron import AWSCron

START = datetime.datetime(2025, 3, 1, tzinfo=datetime.timezone.utc)


def node(day, month):
    command = ["node", sys.argv[1], f"0 0 {day} {month} ? *"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def port(day, month):
    try:
        times = AWSCron.get_next_n_schedule(3, START, f"0 0 {day} {month} ? *")
    except ValueError as error:
        return type(error).__name__
    return " ".join(time.strftime("%Y-%m-%d") for time in times)


def right(day, month):
    times = itertools.islice(CronSim(f"0 0 {day} {month} *", START), 3)
    return " ".join(time.strftime("%Y-%m-%d") for time in times)


DESCRIBED = {
    (31, "*"): ("2025-03-31 2025-05-01 2025-05-31", "ValueError", "2025-03-31 2025-05-31 2025-07-31"),
    (29, "2"): ("2026-03-01 2027-03-01 2028-02-29", "ValueError", "2028-02-29 2032-02-29 2036-02-29"),
    (30, "*"): ("2025-03-30 2025-04-30 2025-05-30",) * 3,
}
as_described = True
for case, described in DESCRIBED.items():
    seen = (node(*case), port(*case), right(*case))
    print(f"day {case[0]}, month {case[1]}:")
    print(f"  aws-cron-parser {seen[0]}\n  pyawscron       {seen[1]}\n  (expected       {seen[2]})")
    as_described &= seen == described
sys.exit(0 if as_described else 1)
PY
