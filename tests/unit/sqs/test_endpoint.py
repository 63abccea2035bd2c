"""Endpoints, proxies and queue names, as the environment and the settings write them."""

from __future__ import annotations

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sqs2pg.errors import SettingsError
from sqs2pg.sqs.endpoint import Endpoint, Proxy, find_proxy, parse_endpoint


@pytest.mark.parametrize(
    ("url", "endpoint", "host_header"),
    [
        (
            "https://sqs.us-east-1.amazonaws.com",
            Endpoint("https", "sqs.us-east-1.amazonaws.com", 443),
            "sqs.us-east-1.amazonaws.com",
        ),
        ("http://LocalHost:4566/", Endpoint("http", "localhost", 4566), "localhost:4566"),
        ("http://127.0.0.1:80", Endpoint("http", "127.0.0.1", 80), "127.0.0.1"),
        ("https://h:80", Endpoint("https", "h", 80), "h:80"),
        ("http://[::1]:9324/a/b", Endpoint("http", "::1", 9324, "/a/b"), "[::1]:9324"),
        ("https://[2001:db8::1]", Endpoint("https", "2001:db8::1", 443), "[2001:db8::1]"),
    ],
)
def test_an_endpoint_url_is_parsed(url: str, endpoint: Endpoint, host_header: str) -> None:
    assert parse_endpoint(url) == endpoint
    assert parse_endpoint(url).host_header == host_header
    signer = SigV4Auth(Credentials("AK", "sk"), "sqs", "us-east-1")
    assert signer.headers_to_sign(AWSRequest("POST", url))["host"] == host_header


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqs.us-east-1.amazonaws.com",
        "ftp://h",
        "http://",
        "http://h:port",
        "http://h:99999",
        "http://h/?q=1",
        "http://h/#f",
        "http://user@h/",
        "http://h/with space",
        "http://h/%20",
        "http://[::1",
    ],
)
def test_a_malformed_endpoint_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_endpoint(url)
    assert "AWS_ENDPOINT_URL" in caught.value.hint


@pytest.fixture
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "request_method"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


AWS = parse_endpoint("https://sqs.us-east-1.amazonaws.com")


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://proxy.example:3128", Proxy("proxy.example", 3128)),
        ("proxy.example:3128", Proxy("proxy.example", 3128)),
        ("http://proxy.example", Proxy("proxy.example", 80)),
        ("http://[::1]:3128/", Proxy("::1", 3128)),
        ("http://u%40x:p%3A@proxy:1", Proxy("proxy", 1, "Basic dUB4OnA6")),
    ],
)
def test_the_proxy_of_the_environment_is_found(
    no_proxies: pytest.MonkeyPatch, url: str, proxy: Proxy
) -> None:
    assert find_proxy(AWS) is None
    no_proxies.setenv("HTTPS_PROXY", url)
    assert find_proxy(AWS) == proxy
    assert find_proxy(parse_endpoint("http://sqs.example")) is None


@pytest.mark.parametrize(
    ("no_proxy", "used"),
    [
        ("", True),
        ("*", False),
        ("amazonaws.com", False),
        (".amazonaws.com", False),
        ("sqs.us-east-1.amazonaws.com:443", False),
        ("sqs.us-east-1.amazonaws.com:444", True),
        ("example.com, sqs.us-east-1.amazonaws.com", False),
        ("us-east-1.amazonaws", True),
    ],
)
def test_no_proxy_excludes_hosts(no_proxies: pytest.MonkeyPatch, no_proxy: str, used: bool) -> None:
    no_proxies.setenv("HTTPS_PROXY", "http://proxy:3128")
    no_proxies.setenv("NO_PROXY", no_proxy)
    assert (find_proxy(AWS) is not None) is used


@pytest.mark.parametrize("host", ["localhost", "sqs.localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_loopback_needs_no_proxy(no_proxies: pytest.MonkeyPatch, host: str) -> None:
    no_proxies.setenv("http_proxy", "http://proxy:3128")
    assert find_proxy(parse_endpoint(f"http://{host}:4566")) is None
    assert find_proxy(parse_endpoint("http://sqs.example:4566")) == Proxy("proxy", 3128)


@pytest.mark.parametrize(
    "url", ["https://proxy:3128", "socks5://proxy:1080", "http://", "http://h:x"]
)
def test_a_malformed_proxy_url_is_refused(no_proxies: pytest.MonkeyPatch, url: str) -> None:
    no_proxies.setenv("HTTPS_PROXY", url)
    with pytest.raises(SettingsError) as caught:
        find_proxy(AWS)
    assert "HTTPS_PROXY" in caught.value.hint


def test_a_proxy_hides_its_password() -> None:
    proxy = Proxy("proxy", 3128, "Basic c2VjcmV0")
    assert repr(proxy) == "Proxy(proxy:3128)"
    assert list(proxy.__rich_repr__()) == ["proxy:3128"]
