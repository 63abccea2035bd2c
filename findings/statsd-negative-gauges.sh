#!/usr/bin/env bash
# hot-shots 17.1.1 and statsd-client 0.4.7 (npm) with StatsD 0.9.0 (npm): gauge(-5) does not set the gauge to -5
# but subtracts 5 from it.
#
# Expected: gauge() sets and gaugeDelta() changes, whatever the sign. A client that wants a negative gauge sends
#   0 first.
#   Sources: StatsD, docs/metric_types.md, "Gauges" ("Adding a sign to the gauge value will change the value,
#   rather than setting it"; a gauge can be set to a negative number only by "first setting it to zero"); the
#   README of hot-shots ("Gauge a stat by a specified amount", and for gaugeDelta "but change it rather than
#   setting it").
# Seen: both send "level:-5|g" for gauge("level", -5), the very packet of gaugeDelta("level", -5). At 20, the
#   gauge is 15 afterwards. With every report of -5 it falls by another 5, without an end, while positive
#   values are set. Temperatures, balances and clock differences show it. statsd 4.0.1 for Python sends 0 first.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check statsd==4.0.1
npm install --prefix "$folder/node" --silent --no-audit --no-fund \
  hot-shots@17.1.1 statsd-client@0.4.7 statsd@0.9.0 >"$folder/npm.log"
cat >"$folder/node/send.js" <<'JS'
const StatsD = require("hot-shots");
const Client = require("statsd-client");
const [port, key, name] = process.argv.slice(2);
const options = { host: "127.0.0.1", port: Number(port) };
const client = key === "hot-shots" ? new StatsD(options) : new Client(options);
for (const value of [20, -5, -5]) client.gauge(name, value);
client.close();
JS
"$folder/env/bin/python" - "$folder/node" <<'PY'
import contextlib
import json
import pathlib
import re
import socket
import subprocess
import sys
import time

import statsd

FOLDER = pathlib.Path(sys.argv[1])
DESCRIBED = {"hot-shots": 10, "statsd-client": 10, "python": -5}


def free_port(kind):
    with socket.socket(socket.AF_INET, kind) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def gauges(port):
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(b"gauges\n")
        answer = b""
        while not answer.rstrip().endswith(b"END"):
            answer += connection.recv(4096)
    found = re.findall(r"['\"]?([\w-]+)['\"]?: (-?\d+)", answer.decode())
    return {name: int(value) for name, value in found if name in DESCRIBED}


port, admin = free_port(socket.SOCK_DGRAM), free_port(socket.SOCK_STREAM)
settings = {
    "port": port, "mgmt_port": admin, "address": "127.0.0.1", "mgmt_address": "127.0.0.1",
    "flushInterval": 60000, "backends": ["./backends/console"],
}
(FOLDER / "config.js").write_text(json.dumps(settings))
server = subprocess.Popen(
    ["node", "stats.js", FOLDER / "config.js"], cwd=FOLDER / "node_modules" / "statsd", stdout=subprocess.PIPE
)
try:
    deadline, seen = time.monotonic() + 30, {}
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            gauges(admin)
            break
        time.sleep(0.1)
    for name in ("hot-shots", "statsd-client"):
        subprocess.run(["node", FOLDER / "send.js", str(port), name, name], check=True, timeout=30)
    client = statsd.StatsClient("127.0.0.1", port)
    for value in (20, -5, -5):
        client.gauge("python", value)
    while seen.keys() != DESCRIBED.keys() and time.monotonic() < deadline:
        time.sleep(0.2)
        seen = gauges(admin)
finally:
    server.kill()
    server.wait()
for name, value in seen.items():
    print(f"{name}: 20, -5 and -5 were set, the gauge is {value} (expected -5)")
sys.exit(0 if seen == DESCRIBED else 1)
PY
