"""Roots in Secrets Manager: two processes that add one at once."""

from __future__ import annotations

import secrets
from typing import Any

import botocore.session
import pytest

from sqs2pg.errors import KeyFault
from sqs2pg.keys import provider_secrets


class Overtaken:
    """A client of Secrets Manager; another process adds a root before its first write."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self._name = name
        self._first = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def put_secret_value(self, **values: Any) -> Any:
        if self._first:
            self._first = False
            provider_secrets.add(self._name, "vault", 2, self._client)
        return self._client.put_secret_value(**values)


@pytest.mark.usefixtures("emulator", "aws_environment")
def test_of_two_roots_added_to_a_secret_at_once_none_is_lost() -> None:
    client = botocore.session.Session().create_client("secretsmanager")
    name = f"keys-{secrets.token_hex(6)}"
    provider_secrets.create(name, client)
    overtaken = Overtaken(client, name)
    with pytest.raises(KeyFault) as caught:
        provider_secrets.add(name, "pseudonym", 2, overtaken)
    assert caught.value.code == "key_store_changed"
    provider_secrets.add(name, "pseudonym", 2, overtaken)
    keyring = provider_secrets.load(name, client)
    assert (keyring.versions("pseudonym"), keyring.versions("vault")) == ((1, 2), (1, 2))
    with pytest.raises(KeyFault) as twice:
        provider_secrets.add(name, "pseudonym", 2, client)
    assert twice.value.code == "key_twice"
    labels = client.describe_secret(SecretId=name)["VersionIdsToStages"].values()
    assert sorted(label for found in labels for label in found) == ["AWSCURRENT", "AWSPREVIOUS"]
    client.close()
