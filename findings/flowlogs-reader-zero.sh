#!/usr/bin/env bash
# flowlogs-reader 5.0.1 (PyPI): a field that is 0 is printed as missing.
#
# Expected: 0 for 0. A "-" in a VPC flow log says that the field does not apply or could not be computed.
#   Source: Amazon VPC User Guide, "Flow log records", fields srcport, dstport and tcp-flags.
# Seen: to_message(), which the command's default action prints, writes "-" for 0. A ping has ports 0, and a
#   flow without TCP flags has tcp-flags 0. FlowRecord itself and to_dict() have the numbers; a record that is
#   printed and read again has none. The README pipes this output to grep and awk.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check flowlogs-reader==5.0.1 boto3==1.44.8
"$folder/env/bin/python" - 2>"$folder/warnings" <<'PY'
import sys

from flowlogs_reader import FlowRecord

PING = "2 123456789012 eni-1 192.0.2.1 198.51.100.1 0 0 1 4 336 1432917027 1432917142 ACCEPT OK"
record = FlowRecord.from_cwl_event({"message": PING})
printed = record.to_message()
again = FlowRecord.from_cwl_event({"message": printed})
print("log:        ", PING)
print("to_message: ", " ".join(printed.split()[:14]), "(expected the same)")
print("source port:", record.srcport, "and after printing and reading:", again.srcport)
seen = (printed.split()[5:7], record.srcport, again.srcport)
sys.exit(0 if seen == (["-", "-"], 0, None) else 1)
PY
