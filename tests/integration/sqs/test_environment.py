"""The AWS environment: what boto3 would find is what we find."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.endpoint import Proxy, parse_endpoint
from sqs2pg.sqs.environment import read_environment
from sqs2pg.sqs.retries import RetrySettings
from sqs2pg.sqs.signer import AwsKeys


@pytest.fixture(scope="module", autouse=True)
def service_models() -> Iterator[None]:
    """Let botocore read its models of services once, not a fifth of a second for each session."""
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(botocore.session.create_loader)
        patch.setattr(botocore.session, "create_loader", once)
        yield


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment with a region and keys, and none of this machine's."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy") or "CA_BUNDLE" in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    return monkeypatch


def test_the_environment_s_variables_are_read(aws: pytest.MonkeyPatch) -> None:
    found = read_environment()
    assert found.region == "eu-west-1"
    assert found.endpoint.host_header == "sqs.eu-west-1.amazonaws.com"
    assert found.endpoint.secure
    assert found.credentials.keys == AwsKeys("AKIDEXAMPLE", "secret")
    assert found.credentials.expiry is None
    assert found.retries == RetrySettings("legacy", 5)
    assert found.proxy is None
    assert "BEGIN CERTIFICATE" in Path(found.ca_bundle).read_text()


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:4566"}, "http://127.0.0.1:4566/"),
        ({"AWS_ENDPOINT_URL_SQS": "http://[::1]:9324/pre/"}, "http://[::1]:9324/pre/"),
        ({"AWS_USE_FIPS_ENDPOINT": "true"}, "https://sqs-fips.eu-west-1.amazonaws.com/"),
        ({"AWS_USE_DUALSTACK_ENDPOINT": "true"}, "https://sqs.eu-west-1.api.aws/"),
        ({"AWS_REGION": "cn-north-1"}, "https://sqs.cn-north-1.amazonaws.com.cn/"),
        (
            {"AWS_REGION": "us-gov-west-1", "AWS_USE_FIPS_ENDPOINT": "true"},
            "https://sqs.us-gov-west-1.amazonaws.com/",
        ),
    ],
)
def test_endpoint_is_where_botocore_sends(
    aws: pytest.MonkeyPatch, variables: dict[str, str], url: str
) -> None:
    for name, value in variables.items():
        aws.setenv(name, value)
    found = read_environment().endpoint
    assert f"{found.scheme}://{found.host_header}{found.path}" == url

    class Sent(Exception):
        pass

    def catch(request: object, **_: object) -> None:
        raise Sent(request.url)  # type: ignore[attr-defined]

    session = botocore.session.Session()
    client = session.create_client("sqs", region_name=variables.get("AWS_REGION", "eu-west-1"))
    client.meta.events.register("before-send.sqs", catch)
    with pytest.raises(Sent) as caught:
        client.list_queues()
    assert str(caught.value) == url


@pytest.mark.parametrize(
    ("variables", "settings"),
    [
        ({"AWS_RETRY_MODE": "standard"}, RetrySettings("standard", 3)),
        ({"AWS_RETRY_MODE": "adaptive"}, RetrySettings("standard", 3)),
        ({"AWS_RETRY_MODE": "adaptive", "AWS_MAX_ATTEMPTS": "6"}, RetrySettings("standard", 6)),
        ({"AWS_MAX_ATTEMPTS": "7"}, RetrySettings("legacy", 7)),
        ({"AWS_MAX_ATTEMPTS": "1", "AWS_RETRY_MODE": "standard"}, RetrySettings("standard", 1)),
    ],
)
def test_the_retry_settings_are_read(
    aws: pytest.MonkeyPatch, variables: dict[str, str], settings: RetrySettings
) -> None:
    for name, value in variables.items():
        aws.setenv(name, value)
    assert read_environment().retries == settings


LOCAL = "http://127.0.0.1:4566"


@pytest.mark.parametrize(
    ("variables", "config"),
    [
        # An emulator's, which are read without botocore.
        ({}, ""),
        ({"AWS_ENDPOINT_URL_SQS": "http://sqs.local:9324/"}, ""),
        ({"AWS_ENDPOINT_URL_SQS": ""}, ""),
        ({"AWS_SESSION_TOKEN": "token"}, ""),
        ({"AWS_SESSION_TOKEN": ""}, ""),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "ap-south-1"}, ""),
        ({"AWS_DEFAULT_REGION": "ap-south-1"}, ""),
        ({"AWS_CA_BUNDLE": "/aws.pem"}, ""),
        # What looks like it.
        ({"AWS_ENDPOINT_URL": "http://LocalHost"}, ""),
        ({"AWS_SECURITY_TOKEN": "a", "AWS_SESSION_TOKEN": "b"}, ""),
        ({"AWS_MAX_ATTEMPTS": "7"}, ""),
        ({"AWS_RETRY_MODE": "standard"}, ""),
        ({"AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}, ""),
        ({"AWS_REGION": "us-east-1-fips"}, ""),
        ({"AWS_PROFILE": "p"}, "[profile p]\nretry_mode=standard\n"),
        ({}, "[default]\nretry_mode=standard\nregion=ap-south-1\n"),
        ({"AWS_REGION": ""}, "[default]\nregion=ap-south-1\n"),
    ],
)
def test_an_emulators_environment_is_what_botocore_finds(
    aws: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], config: str
) -> None:
    for name, value in ({"AWS_ENDPOINT_URL": LOCAL} | variables).items():
        aws.setenv(name, value)
    if config:
        (tmp_path / "config").write_text(config)
    session = botocore.session.Session()
    client = session.create_client("sqs", region_name=os.environ["AWS_REGION"] or None)
    keys = session.get_credentials().get_frozen_credentials()
    retries = client.meta.config.retries
    mode = retries.get("mode") or "legacy"
    attempts = retries.get("total_max_attempts") or (5 if mode == "legacy" else 3)

    found = read_environment()
    assert found.region == client.meta.region_name
    assert found.endpoint == parse_endpoint(client.meta.endpoint_url)
    assert found.credentials.keys == AwsKeys(keys.access_key, keys.secret_key, keys.token)
    assert found.credentials.expiry is None
    assert found.retries == RetrySettings(mode, attempts)
    assert found.proxy is None


def test_a_profile_is_read(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[profile p]\nregion=ap-south-1\nretry_mode=standard\nca_bundle=/somewhere.pem\n"
        "services=s\n[services s]\nsqs=\n  endpoint_url=https://sqs.internal:8443\n"
    )
    (tmp_path / "credentials").write_text(
        "[p]\naws_access_key_id=PROFILE\naws_secret_access_key=s\naws_session_token=t\n"
    )
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        aws.delenv(name)
    aws.setenv("AWS_PROFILE", "p")
    found = read_environment()
    assert found.region == "ap-south-1"
    assert (found.endpoint.host, found.endpoint.port) == ("sqs.internal", 8443)
    assert found.ca_bundle == "/somewhere.pem"
    assert found.retries.mode == "standard"
    assert found.credentials.keys == AwsKeys("PROFILE", "s", "t")


def test_arguments_override_the_environment(aws: pytest.MonkeyPatch) -> None:
    found = read_environment(region="us-west-2", endpoint_url="http://127.0.0.1:1")
    assert (found.region, found.endpoint.port) == ("us-west-2", 1)


def test_the_proxy_and_the_ca_bundle_are_read(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("HTTPS_PROXY", "http://proxy:3128")
    aws.setenv("AWS_CA_BUNDLE", "/aws.pem")
    found = read_environment()
    assert found.proxy == Proxy("proxy", 3128)
    assert found.ca_bundle == "/aws.pem"


@pytest.mark.parametrize(
    ("variables", "hint"),
    [
        ({"AWS_REGION": ""}, "AWS_REGION"),
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_PROFILE"),
        ({"AWS_PROFILE": "no-such"}, "aws sqs"),
        ({"AWS_RETRY_MODE": "sometimes"}, "aws sqs"),
        ({"AWS_REGION": "not a region"}, "aws sqs"),
        ({"AWS_ENDPOINT_URL": "nonsense"}, "aws sqs"),
        ({"AWS_ENDPOINT_URL": "http://h/?q=1"}, "AWS_ENDPOINT_URL"),
        ({"AWS_ACCESS_KEY_ID": "AKID\n"}, "newline"),
    ],
)
def test_a_missing_or_wrong_variable_is_named(
    aws: pytest.MonkeyPatch, variables: dict[str, str], hint: str
) -> None:
    for name, value in variables.items():
        if value:
            aws.setenv(name, value)
        else:
            aws.delenv(name)
    with pytest.raises(SettingsError) as caught:
        read_environment()
    assert hint in caught.value.hint


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_bundle_that_cannot_be_read(
    aws: pytest.MonkeyPatch, tmp_path: Path, content: str | None
) -> None:
    bundle = tmp_path / "roots.pem"
    if content is not None:
        bundle.write_text(content)
    aws.setenv("AWS_CA_BUNDLE", str(bundle))
    with pytest.raises(SettingsError, match="CA bundle"):
        SqsClient.from_environment()
