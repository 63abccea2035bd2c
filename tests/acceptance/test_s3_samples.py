"""`init`, `config test --sample` and `check --sample` where a queue has notifications of S3."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.s3_events import made_bucket, notification, of, packed, removed_bucket
from tests.shell import Shell

Send = Callable[[list[str]], list[str]]


@pytest.fixture
def bucket(emulator_endpoint: str, aws_environment: dict[str, str]) -> Iterator[Any]:
    made = made_bucket(emulator_endpoint, f"samples-{secrets.token_hex(6)}")
    yield made
    removed_bucket(made)


def test_a_proposal_from_notifications_takes_the_lines_of_their_objects(
    shell: Shell, send: Send, bucket: Any
) -> None:
    some = b"".join(
        json.dumps({"order_id": f"o{i}", "amount": i, "email": f"u{i}@example.com"}).encode()
        + b"\n"
        for i in range(20)
    )
    told = of(bucket.put_object(Key="orders 1.jsonl", Body=some))
    gone = notification(bucket.name, "gone", etag="e")
    test_event = json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})
    send([test_event, gone, told])
    proposed = shell("init", "--sample", "10").out
    assert 'layers = ["s3_event"]' in proposed
    assert f's3_buckets = ["{bucket.name}"]' in proposed
    assert 'source = "order_id"' in proposed
    file = shell.folder / "proposed.toml"
    file.write_text(proposed)
    shell("migrate", "-c", str(file))
    tried = shell("config", "test", "--sample", "10", "-c", str(file), "--json").last
    assert (tried["messages"], len(tried["rows"]), tried["faults"]) == (10, 10, {})
    assert "@example.com" not in json.dumps(tried)
    found = shell("check", "--sample", "10", "-c", str(file), "--json").last["checks"]
    [sample] = [one for one in found if one["name"] == "sample"]
    assert (sample["status"], sample["detail"]) == ("ok", "10 messages would become 10 rows")
    done = shell("run", "--drain", "-c", str(file), "--json").last
    assert (done["received"], done["written"], done["quarantined"]) == (3, 2, 1)
    assert done["object_lines"] == 20


def test_lines_that_would_be_quarantined_are_named_with_their_object(
    shell: Shell, send: Send, bucket: Any
) -> None:
    (shell.folder / "sqs2pg.toml").write_text(
        f'[envelope]\nlayers = ["s3_event"]\ns3_buckets = ["{bucket.name}"]\n'
        '[sink]\ntable = "t"\n[[field]]\nsource = "id"\ncolumn = "id"\ntype = "uuid"\n'
    )
    send([of(bucket.put_object(Key="k.gz", Body=packed(["x"]))), notification("other", "k")])
    said = shell("config", "test", "--sample", "5", code=1)
    assert f"QUARANTINE s3://{bucket.name}/k.gz line 1: bad_uuid id" in said.out
    assert ": payload_bucket" in said.out
