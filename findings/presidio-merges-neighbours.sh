#!/usr/bin/env bash
# presidio-anonymizer 2.2.366 (PyPI): two values of one kind with only spaces between them are replaced as one
# value.
#
# Expected: one replacement for each result that is passed in, so that a person has one token wherever the
#   name or address stands, with a fixed salt.
#   Source: Presidio documentation, "Presidio Anonymizer", hash operator (the hash of the entity's text), and
#   the docstring of AnonymizerEngine.anonymize, which does not mention the merge.
# Seen: results of the same entity type are joined if only spaces lie between them. "<a> <b>" gets one hash,
#   of both together and the space, which is the hash of neither and changes with their order and with the
#   number of spaces. A comma, a line feed or another type between them keeps them apart. Counting people by
#   hash counts a new person for each pair. The parameter merge_entities_with_spaces=False turns it off.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check presidio-anonymizer==2.2.366
"$folder/env/bin/python" -W ignore - <<'PY'
import sys

from presidio_anonymizer import AnonymizerEngine
from presidio_anonymizer.entities import OperatorConfig, RecognizerResult

OPERATORS = {"DEFAULT": OperatorConfig("hash", {"salt": b"sixteen bytes or more"})}
NAMES = ["anna", "ben"]


def tokens(separator, names, **options):
    text, results = "", []
    for name in names:
        text += separator if results else ""
        results.append(RecognizerResult("USER", len(text), len(text) + len(name), 1.0))
        text += name
    hashed = AnonymizerEngine().anonymize(text, results, OPERATORS, **options)
    return {item.text for item in hashed.items}


anna, ben = (tokens("", [name]) for name in NAMES)
as_described = True
for separator, described in [(", ", 2), ("\n", 2), (" ", 1), ("  ", 1)]:
    seen = tokens(separator, NAMES)
    known = seen & (anna | ben)
    print(f"separated by {separator!r}: {len(seen)} tokens, {len(known)} of them known from each name alone")
    as_described &= len(seen) == described and len(known) == (2 if described == 2 else 0)
as_described &= tokens(" ", NAMES) != tokens(" ", NAMES[::-1])
as_described &= tokens(" ", NAMES, merge_entities_with_spaces=False) == anna | ben
sys.exit(0 if as_described else 1)
PY
