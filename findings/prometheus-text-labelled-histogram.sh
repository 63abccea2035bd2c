#!/usr/bin/env bash
# parse-prometheus-text-format 1.1.1 (npm): histograms and summaries with labels lose their labels, their sums
# and counts, and all series but the last.
#
# Expected: one entry for each set of labels, with its buckets, sum and count, as for counters and gauges. The
#   README promises output compatible with prom2json's, which has that.
#   Sources: Prometheus, "Exposition formats", "Histograms and summaries"; the README of the package.
# Seen: one entry for the whole family. Its buckets are those of the series that comes last, labels, sum and
#   count are gone, already if there is one series. Without labels, as in the README's example, all is there. So
#   a latency by route is read as the latency of some route. prometheus-client 0.26.0 (Python) reads them all.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check prometheus-client==0.26.0
npm install --prefix "$folder/node" --silent --no-audit --no-fund \
  parse-prometheus-text-format@1.1.1 >"$folder/npm.log"
cat >"$folder/metrics.txt" <<'TEXT'
# TYPE plain_seconds histogram
plain_seconds_bucket{le="1"} 1
plain_seconds_bucket{le="+Inf"} 2
plain_seconds_sum 5
plain_seconds_count 2
# TYPE route_seconds histogram
route_seconds_bucket{route="a",le="1"} 3
route_seconds_bucket{route="a",le="+Inf"} 4
route_seconds_sum{route="a"} 9
route_seconds_count{route="a"} 4
route_seconds_bucket{route="b",le="1"} 5
route_seconds_bucket{route="b",le="+Inf"} 6
route_seconds_sum{route="b"} 7
route_seconds_count{route="b"} 6
# TYPE task_seconds summary
task_seconds{task="a",quantile="0.5"} 1
task_seconds_sum{task="a"} 2
task_seconds_count{task="a"} 3
TEXT
cat >"$folder/node/run.js" <<'JS'
const parse = require("parse-prometheus-text-format");
const text = require("fs").readFileSync(process.argv[2], "utf8");
console.log(JSON.stringify(parse(text)));
JS
"$folder/env/bin/python" - "$folder" <<'PY'
import json
import subprocess
import sys
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

folder = Path(sys.argv[1])
for family in text_string_to_metric_families((folder / "metrics.txt").read_text()):
    sums = {str(s.labels): s.value for s in family.samples if s.name.endswith("_sum")}
    print(f"{family.name:14} sums by prometheus-client: {sums}")
command = ["node", folder / "node/run.js", folder / "metrics.txt"]
output = subprocess.run(command, check=True, capture_output=True).stdout
seen = {family["name"]: family["metrics"] for family in json.loads(output)}
for name, metrics in seen.items():
    print(f"{name:14} by the package: {metrics}")
as_described = {
    "plain_seconds": [{"buckets": {"1": "1", "+Inf": "2"}, "count": "2", "sum": "5"}],
    "route_seconds": [{"buckets": {"1": "5", "+Inf": "6"}}],
    "task_seconds": [{"quantiles": {"0.5": "1"}}],
}
sys.exit(0 if seen == as_described else 1)
PY
