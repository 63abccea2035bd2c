"""`sqs2pg init` on queues that it has not seen: what was planted, and what it made of it.

Each proposal passes `check` and `config test --sample`, takes the messages themselves, and keeps
nothing unmarked that is personal.
"""

from __future__ import annotations

import csv
import io
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]

N = 12
AGENT = "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/{}"
CARDS = ("4111111111111111", "5500000000000004", "378282246310005")
IBANS = ("DE89370400440532013000", "GB82WEST12345698765432", "FR1420041010050500013M02606")


@dataclass
class Unseen:
    """A queue: its messages, what is personal in them, and what the proposal must say."""

    bodies: list[str]
    planted: dict[str, list[str]]
    """By source the personal values of the first messages."""
    lines: list[str] = field(default_factory=list)
    """What stands in the proposal, conversions that the mapping has."""
    file: str = ""


def nested() -> Unseen:
    docs = [
        {
            "event": {"id": f"e-{i}", "at": "2026-03-01T12:00:00Z"},
            "customer": {
                "name": f"Ann{i} Lee{i}",
                "contact": {"email": f"ann{i}@example.org", "phone": f"+49 151 234567{i:02}"},
                "birthDate": f"1990-01-{i + 1:02}",
            },
            "client": {"ip": f"198.51.100.{i}", "userAgent": AGENT.format(100 + i)},
            "geo": {"lat": 48.4 + i / 1000, "lng": 9.9 + i / 1000},
            "auth": {"password": f"hunter2-{i}", "cookie": f"sid=c00kie{i}; theme=dark"},
            "note": f"please call Ann{i} on +49 30 12345{i:02} before noon today",
            "device": {"mac": f"00:1b:44:11:3a:{i:02x}"},
        }
        for i in range(N)
    ]
    return Unseen(
        [*map(json.dumps, docs)],
        {
            "customer.name": [f"Ann{i} Lee{i}" for i in range(N)],
            "customer.contact.email": [f"ann{i}@example.org" for i in range(N)],
            "customer.contact.phone": [f"151 234567{i:02}" for i in range(N)],
            "customer.birthDate": [f"1990-01-{i + 1:02}" for i in range(N)],
            "client.ip": [f"198.51.100.{i}" for i in range(N)],
            "client.userAgent": ["Mozilla/5.0"],
            "geo.lat": ["48.401", "48.402"],
            "geo.lng": ["9.901", "9.902"],
            "auth.password": ["hunter2-"],
            "auth.cookie": ["c00kie"],
            "note": [f"+49 30 12345{i:02}" for i in range(N)],
            "device.mac": ["00:1b:44:11:3a"],
        },
        ['source = "event.at"\ncolumn = "event_at"\ntype = "timestamptz"\nrequired = true'],
    )


def arrays() -> Unseen:
    docs = [
        {
            "order_id": f"o-{i}",
            "tags": ["new", "gift"],
            "scores": [i, None, 3],
            "items": [
                {"sku": f"s{j}", "qty": j + 1, "for": f"bob{j}@example.org"} for j in range(2)
            ],
            "contacts": [{"name": f"Zoe{i}", "email": f"zoe{i}@example.org", "primary": True}],
            "cc": [f"cc{i}@example.org"],
        }
        for i in range(N)
    ]
    return Unseen(
        [*map(json.dumps, docs)],
        {
            "items[].for": ["bob0@", "bob1@"],
            "contacts[].name": [f"Zoe{i}" for i in range(N)],
            "contacts[].email": [f"zoe{i}@example.org" for i in range(N)],
            "cc": [f"cc{i}@example.org" for i in range(N)],
        },
        [
            'explode = "items"',
            'explode = "contacts"',
            'source = "items[].sku"',
            'column = "tags"\ntype = "text[]"',
            'column = "scores"\ntype = "integer[]"',
        ],
    )


def nulls() -> Unseen:
    docs: list[dict[str, Any]] = [
        {
            "id": i,
            "shipping": {"street": f"Elm Road {i}", "city": "Ulm"} if i % 2 else None,
            "coupon": None,
            "gift": True if i % 3 else None,
            "price": 1.5 if i % 2 else None,
        }
        for i in range(N)
    ]
    return Unseen(
        [*map(json.dumps, docs)],
        {"shipping.street": ["Elm Road"], "shipping.city": ["Ulm"]},
        ['source = "id"\ncolumn = "id"\ntype = "integer"\nrequired = true', '# source = "coupon"'],
    )


def quoted() -> Unseen:
    docs = [
        {
            "orderNo": f"{i:06}",
            "amount": f"{i}.50",
            "quantity": str(i),
            "big": str(2**40 + i),
            "paid": "true" if i % 2 else "false",
            "msisdn": f"49151234567{i:02}",
            "cardNumber": CARDS[i % 3],
            "account": IBANS[i % 3],
        }
        for i in range(N)
    ]
    return Unseen(
        [*map(json.dumps, docs)],
        {
            "msisdn": ["49151234567"],
            "cardNumber": [*CARDS],
            "account": [*IBANS],
        },
        [
            'source = "amount"\ncolumn = "amount"\ntype = "numeric"\nfrom = "text"',
            'source = "quantity"\ncolumn = "quantity"\ntype = "integer"\nfrom = "text"',
            'source = "big"\ncolumn = "big"\ntype = "bigint"\nfrom = "text"',
            'source = "paid"\ncolumn = "paid"\ntype = "boolean"\nfrom = "text"',
        ],
    )


def epochs() -> Unseen:
    docs = [
        {
            "sensor": f"t-{i}",
            "ts": 1_760_000_000 + i,
            "received_at": 1_760_000_000_000 + i,
            "startedAt": str(1_760_000_000 + i),
            "count": 1_760_000_000 + i,
            "localTime": f"2026-03-01T12:00:{i:02}",
            "offset_time": f"2026-03-01T12:00:{i:02}+0100",
            "imei": f"35693803564380{i % 10}",
            "position": f"48.40{i:02}, 9.98{i:02}",
        }
        for i in range(N)
    ]
    return Unseen(
        [*map(json.dumps, docs)],
        {"imei": ["35693803564380"], "position": ["48.40"]},
        [
            'column = "ts"\ntype = "timestamptz"\nformat = "epoch_s"',
            'column = "received_at"\ntype = "timestamptz"\nformat = "epoch_ms"',
            'column = "started_at"\ntype = "timestamptz"\nformat = "epoch_s"',
            'column = "count"\ntype = "integer"',
            'column = "local_time"\ntype = "timestamptz"\nformat = "iso8601"\ntimezone = "UTC"',
            'column = "offset_time"\ntype = "timestamptz"\nrequired = true',
        ],
    )


def mixed() -> Unseen:
    docs: list[dict[str, Any]] = []
    for i in range(N // 3):
        docs += [
            {"login": {"id": f"l{i}", "user_email": f"kim{i}@example.org"}, "value": i},
            {"purchase": {"id": f"p{i}", "card": CARDS[i % 3], "total": 3.5}, "value": f"v{i}"},
            {"ping": {"n": i}},
        ]
    return Unseen(
        [*map(json.dumps, docs)],
        {
            "login.user_email": ["kim0@example.org", "kim1@example.org"],
            "purchase.card": [*CARDS],
        },
        ["[[route]]", "exists = true"],
    )


def csv_archive() -> Unseen:
    out = io.StringIO()
    names = ("id", "full_name", "email", "amount", "created_at", "remark")
    rows = csv.DictWriter(out, names)
    rows.writeheader()
    for i in range(N):
        rows.writerow(
            {
                "id": f"{i + 1}",
                "full_name": f"Max{i} Muster",
                "email": f"max{i}@example.org",
                "amount": f"{i}.25" if i else "",
                "created_at": "2026-03-01T12:00:00Z",
                "remark": f"paid from {IBANS[i % 3]}, thanks a lot" if i % 2 else "",
            }
        )
    return Unseen(
        [],
        {
            "full_name": ["Muster"],
            "email": ["max0@example.org", "max1@example.org"],
            "remark": [*IBANS],
        },
        [
            'column = "amount"\ntype = "numeric"\nfrom = "text"',
            'column = "created_at"\ntype = "timestamptz"',
        ],
        out.getvalue(),
    )


def sns() -> Unseen:
    docs = [
        {
            "eventId": f"424cdd21-063a-43a7-b91b-{i:012x}",
            "session_token": f"t0ken-{i}",
            "national_id": f"593-47-59{i:02}",
            "remote": f"2001:db8::{i + 1:x}",
            "payload": json.dumps({"mail": f"eve{i}@example.org"}),
        }
        for i in range(N)
    ]
    wrapped = [
        {
            "Type": "Notification",
            "MessageId": str(i),
            "TopicArn": "arn:aws:sns:eu-central-1:123456789012:events",
            "Message": json.dumps(doc),
            "Timestamp": "2026-03-01T12:00:00Z",
        }
        for i, doc in enumerate(docs)
    ]
    return Unseen(
        [*map(json.dumps, wrapped)],
        {
            "session_token": ["t0ken-"],
            "national_id": ["593-47-59"],
            "remote": ["2001:db8::"],
            "payload": ["eve0@example.org", "eve1@example.org"],
        },
        ['layers = ["sns"]', 'column = "event_id"\ntype = "uuid"\nrequired = true'],
    )


QUEUES = {
    "nested": nested,
    "arrays": arrays,
    "nulls": nulls,
    "quoted numbers": quoted,
    "epochs": epochs,
    "mixed kinds": mixed,
    "csv archive": csv_archive,
    "sns": sns,
}


@pytest.mark.parametrize("name", QUEUES)
def test_a_proposal_takes_its_queue_and_keeps_nothing_personal(
    name: str, shell: Shell, query: Query, send: Send, record_property: Callable[..., None]
) -> None:
    queue = QUEUES[name]()
    sample = sample_of(shell, queue, send)
    proposed = shell("init", "--sample", sample, "--explain")
    text = proposed.out
    without_reasons = shell("init", "--sample", sample).out
    for line in queue.lines:
        assert line in without_reasons, (line, without_reasons)
    assert "# seen: in " in text
    for values in queue.planted.values():
        assert not [value for value in values if value in text + proposed.err]
    found = treatment(text, queue.planted)
    record_property("planted and found", found)
    print(f"\n{name}: {found}")
    assert not [source for source, what in found.items() if what == "kept"], found

    (shell.folder / "proposed.toml").write_text(text)
    tried = shell("config", "test", "--sample", sample, "-c", "proposed.toml", "--json").last
    assert tried["ok"], tried["quarantined"]
    assert not tried["quarantined"]
    shell("migrate", "-c", "proposed.toml")
    report = shell("check", "-c", "proposed.toml", "--json").last
    assert report["ok"], report
    assert not [one for one in report["checks"] if one["name"] == "masking policy"
                and one["status"] == "warn"], report  # fmt: skip
    tried = shell("config", "test", "--sample", sample, "-c", "proposed.toml", "--json").last
    assert (tried["ok"], tried["without"]) == (True, [])
    if queue.file:
        shell("backfill", sample, "-c", "proposed.toml")
    else:
        done = shell("run", "--drain", "-c", "proposed.toml", "--json").last
        assert (done["written"], done["quarantined"]) == (N, 0)
    tables = [one["table"] for one in tomllib.loads(text).get("route", [])]
    tables = tables or [tomllib.loads(text)["sink"]["table"]]
    rows = [row for table in tables for row in query(f'SELECT t::text FROM "{table}" t')]
    assert len(rows) >= N
    for values in queue.planted.values():
        assert not [value for value in values if value in str(rows)], text
    send(['{"foreign": 1}'])
    done = shell("run", "--drain", "-c", "proposed.toml", "--json").last
    assert (done["written"], done["quarantined"]) == (0, 1)


def sample_of(shell: Shell, queue: Unseen, send: Send) -> str:
    """Return what `--sample` is given: a number of messages, or a file."""
    if queue.file:
        (Path(shell.folder) / "orders.csv").write_text(queue.file, encoding="utf-8")
        return "orders.csv"
    send(queue.bodies)
    return "50"


def treatment(text: str, planted: dict[str, list[str]]) -> dict[str, str]:
    """Return what a proposal does with each source that has something personal."""
    tree = tomllib.loads(text)
    fields = [*tree.get("field", []), *(f for r in tree.get("route", []) for f in r["field"])]
    found: dict[str, str] = {}
    for source in planted:
        its = [one for one in fields if one.get("source") == source]
        masks = {one.get("mask", "kept") for one in its}
        found[source] = ", ".join(sorted(masks)) or "not mapped"
    return found
