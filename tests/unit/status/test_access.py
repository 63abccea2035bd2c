"""Who may ask for what: Host, Origin, token, cookie."""

from __future__ import annotations

from pathlib import Path

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.settings import StatusSettings
from sqs2pg.status.access import Access

TOKEN = "0123456789abcdef"
LOCAL = {"Host": "127.0.0.1:9465"}


def refused(access: Access, path: str, headers: dict[str, str]) -> int:
    refusal = access.refuse(path, headers)
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:9465", 200),
        ("localhost:9465", 200),
        ("LOCALHOST", 200),
        ("app.localhost", 200),
        ("[::1]:9465", 200),
        ("10.1.2.3:9465", 200),
        ("etl.internal:9465", 200),
        ("evil.example:9465", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("evil.example:9465@127.0.0.1", 200),  # its host is 127.0.0.1
        ("127.0.0.1@evil.example", 403),
    ],
)
def test_the_host_must_be_a_name_of_this_address(host: str, status: int) -> None:
    access = Access(hosts="etl.internal, other")
    assert refused(access, "/metrics", {"Host": host}) == status
    assert refused(access, "/livez", {"Host": host}) == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://127.0.0.1:9465"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}, 200),
    ],
)
def test_requests_from_another_site_s_page_are_refused(
    headers: dict[str, str], status: int
) -> None:
    assert refused(Access(), "/events", LOCAL | headers) == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "[::1"},
        {"Host": "[not-an-address]"},
        {"Host": "localhost:port"},
        {"Host": "localhost:99999"},
        {"Host": "localhost, evil.example"},
        {"Host": "localhost/evil.example"},
        {"Origin": "http://[::1"},
        {"Origin": "http://[x]:1"},
        {"Cookie": 'sqs2pg_status="\\351"'},
        {"Cookie": "a=b;$x"},
    ],
)
def test_a_malformed_header_is_said_to_be_one(headers: dict[str, str]) -> None:
    refusal = Access(TOKEN).refuse("/metrics", LOCAL | headers)
    assert refusal is not None
    assert refusal.status == 400
    assert next(iter(headers)) in refusal.what
    assert next(iter(headers.values())) not in refusal.what
    assert refused(Access(TOKEN), "/livez", LOCAL | headers) == 200


def test_with_a_token_all_but_the_probes_want_it() -> None:
    access = Access(TOKEN)
    for path in ("/", "/metrics", "/state", "/events", "/static/app.js"):
        assert refused(access, path, LOCAL) == 401
        assert refused(access, path, LOCAL | {"Authorization": "Bearer wrong"}) == 401
        assert refused(access, path, LOCAL | {"Authorization": f"Bearer {TOKEN}"}) == 200
    assert refused(access, "/livez", LOCAL) == refused(access, "/readyz", LOCAL) == 200


def test_the_cookie_stands_for_the_token_and_is_not_it() -> None:
    access = Access(TOKEN)
    cookie = access.cookie()
    assert TOKEN not in cookie
    assert "HttpOnly; SameSite=Strict" in cookie
    pair = cookie.split(";")[0]
    assert refused(access, "/", LOCAL | {"Cookie": f"other=1; {pair}"}) == 200
    assert refused(access, "/", LOCAL | {"Cookie": pair + "0"}) == 401
    assert refused(Access(TOKEN + "x"), "/", LOCAL | {"Cookie": pair}) == 401
    # Browsers send a cookie by themselves, so Host and Origin are checked all the same.
    assert refused(access, "/", {"Host": "evil.example", "Cookie": pair}) == 403


def test_a_bearer_token_proves_more_than_a_host_name() -> None:
    headers = {"Host": "sqs2pg.monitoring.svc:9465", "Authorization": f"Bearer {TOKEN}"}
    assert refused(Access(TOKEN, loopback=False), "/metrics", headers) == 200


def test_off_loopback_without_a_token_only_the_probes_are_served() -> None:
    access = Access.from_settings(StatusSettings(bind="0.0.0.0:9465"))
    assert access.closed
    assert refused(access, "/metrics", LOCAL) == 401
    assert refused(access, "/metrics", LOCAL | {"Authorization": "Bearer "}) == 401
    assert refused(access, "/readyz", {"Host": "10.0.0.7:9465"}) == 200
    assert not Access.from_settings(StatusSettings(bind="[::1]:9465")).closed


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_on_loopback_no_token_is_needed(host: str) -> None:
    assert not Access.from_settings(StatusSettings(bind=f"[{host}]:9465")).closed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "", "host"])
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    assert Access.from_settings(StatusSettings(bind=f"[{host}]:9465")).closed


def test_the_token_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert Access.from_settings(StatusSettings(token_file=str(file))).matches(TOKEN)
    with pytest.raises(SettingsError, match="cannot be read"):
        Access.from_settings(StatusSettings(token_file=str(tmp_path / "none")))


@pytest.mark.parametrize("token", ["short", "0123456789abcdef\u00e9", "0123456789\nabcdef"])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_refused(token: str) -> None:
    with pytest.raises(SettingsError, match="printable ASCII") as refusal:
        Access.from_settings(StatusSettings(token=token))
    assert token not in str(refusal.value) + refusal.value.hint


def test_the_token_does_not_show() -> None:
    assert TOKEN not in repr(StatusSettings(token=TOKEN))
