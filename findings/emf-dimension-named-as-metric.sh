#!/usr/bin/env bash
# aws-embedded-metrics 3.5.0 (PyPI): a metric named as a dimension overwrites the dimension's value.
#
# Expected: an error, or both values. A dimension's target member must be a string.
#   Source: CloudWatch User Guide, "Specification: Embedded metric format", DimensionSet and "Target member".
#   The library does check other limits of a dimension set and raises for them.
# Seen: dimensions, properties and metrics share one flat object, and the metric wins. The line declares the
#   dimension `queue` and has a number there, which the specification forbids. The dimension's value is gone
#   from the log too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check aws-embedded-metrics==3.5.0
AWS_EMF_ENVIRONMENT=Local "$folder/env/bin/python" - <<'PY'
import json
import sys

from aws_embedded_metrics.logger.metrics_context import MetricsContext
from aws_embedded_metrics.serializers.log_serializer import LogSerializer

context = MetricsContext.empty()
context.put_dimensions({"queue": "orders"})
context.put_metric("queue", 3, "Count")
lines = LogSerializer.serialize(context)
print(*lines, sep="\n")
line = json.loads(lines[0])
declared = line["_aws"]["CloudWatchMetrics"][0]
print("dimensions", declared["Dimensions"], "and the member's value is", repr(line["queue"]))
print("(expected an error, or the string 'orders')")
sys.exit(0 if (declared["Dimensions"], line["queue"]) == ([["queue"]], 3) else 1)
PY
