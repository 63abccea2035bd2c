#!/usr/bin/env bash
# frictionless 5.21.0 (PyPI): a column of numbers with a decimal comma is inferred as geographic points.
#
# Expected: "3,99" in quotes is text, as "1,000" beside "2" is, or the number 3.99.
#   Source: Table Schema, "geopoint" (a longitude and a latitude); frictionless documentation, "Describing
#   Data" (types are inferred from the values).
# Seen: while the part before each comma is at most 180 and the part after it at most 90, the column is a
#   geopoint, and 3,50 is read as the place [3.0, 50.0]. One price with 99 after the comma, or one above 180,
#   makes the same column text. So the type of a column of prices depends on the cents in the sample.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check frictionless==5.21.0
cd "$folder"
"$folder/env/bin/python" -W ignore - <<'PY'
import sys
from decimal import Decimal
from pathlib import Path

from frictionless import Resource


def inferred(*prices):
    Path("prices.csv").write_text("price,name\n" + "".join(f'"{price}",x\n' for price in prices))
    resource = Resource(path="prices.csv")
    resource.infer()
    prices = [row["price"] for row in resource.read_rows()]
    kind = resource.schema.get_field("price").type
    return kind, [list(map(float, price)) if kind == "geopoint" else price for price in prices]


DESCRIBED = [
    (["3,50", "12,90"], "geopoint", [[3.0, 50.0], [12.0, 90.0]]),
    (["3,50", "12,99"], "string", ["3,50", "12,99"]),
    (["3,50", "199,50"], "string", ["3,50", "199,50"]),
    (["3.50", "12.99"], "number", [Decimal("3.50"), Decimal("12.99")]),
]
as_described = True
for prices, kind, values in DESCRIBED:
    seen = inferred(*prices)
    print(prices, "->", *seen)
    as_described &= seen == (kind, values)
sys.exit(0 if as_described else 1)
PY
