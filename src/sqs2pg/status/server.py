"""The status server: the page, `/metrics` for Prometheus, `/livez` and `/readyz` for supervisors.

It has threads of its own, so that it still answers when the event loop hangs, and reports that. It
only reads. The page loads everything from here, so it works without any other network.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from functools import partial
from importlib import resources
from urllib.parse import parse_qs, unquote

from prometheus_client.exposition import choose_encoder

from sqs2pg.postgres.tap import TappedRows
from sqs2pg.status.bounded_server import REQUEST_S, BoundedHandler, BoundedServer, place
from sqs2pg.status.fault_pages import fault_meanings, fault_page
from sqs2pg.status.recorder import Moment, Recorder, Track
from sqs2pg.status.site import Health, Site
from sqs2pg.status.snapshot import encode
from sqs2pg.telemetry.lean_prometheus import CollectorRegistry

_LOGIN_BYTES_MAX = 4096
_LENGTH = re.compile("[0-9]{1,9}")

# Scripts, styles and data from this server only, nothing inline, not in a frame.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # "no-referrer" would make the form's Origin null
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_JSON = "application/json"
_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


class StatusServer(BoundedServer):
    """Answers the clients of a listening socket, which it closes at its end."""

    timeout = 0  # `handle_request` is called when there is one; if it has gone, wait for no other

    def __init__(self, listening: socket.socket, site: Site) -> None:
        self.site = site
        super().__init__(listening, _Handler)


def find_asset(path: str) -> tuple[str, bytes] | None:
    """Return the type and content of one of the page's files; None for any other path."""
    name = "index.html" if path == "/" else path.removeprefix("/static/")
    folder = resources.files("sqs2pg.status") / "static"
    if path != "/" and (not path.startswith("/static/") or "/" in name):
        return None
    for file in folder.iterdir():
        if file.name == name and (kind := _TYPES.get(name.rpartition(".")[2])):
            return kind, file.read_bytes()
    return None


def _encoder(accept: str) -> tuple[Callable[[CollectorRegistry], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # a malformed version in the header
        return choose_encoder("")


class _Handler(BoundedHandler):
    server: StatusServer
    server_version = "sqs2pg"
    sys_version = ""

    def _headers(self) -> dict[str, str]:
        # Names are case-insensitive (RFC 9110, section 5.1); proxies write them in lower case. A
        # header that comes twice is a list (section 5.3), which no Host or Origin can be.
        headers: dict[str, str] = {}
        for name, value in self.headers.items():
            key = name.title()
            between = "; " if key == "Cookie" else ", "
            headers[key] = f"{headers[key]}{between}{value}" if key in headers else value
        return headers

    def get(self) -> None:
        """Answer with what is served at the path."""
        site = self.server.site
        path = self.path.partition("?")[0]
        if refusal := site.access.refuse(path, self._headers()):
            self._refuse(path, *refusal)
            return
        match path:
            case "/metrics":
                encode_all, content_type = _encoder(self.headers.get("Accept", ""))
                self._answer(200, content_type, encode_all(site.registry))
            case "/livez":
                self._report(site.health)
            case "/readyz":
                self._report(site.ready)
            case "/faults":
                self._answer(200, _TYPES["html"], fault_page())
            case "/faults.json":
                self._answer(200, _JSON, fault_meanings())
            case _ if self._of_all(site, path) or self._of_one(site, path):
                pass
            case _ if site.recorder and (asset := find_asset(path)):
                self._answer(200, *asset)
            case _:
                known = b"/, /metrics, /livez, /readyz, /state, /history, /events\n"
                if site.several:
                    known = b"/, /metrics, /livez, /readyz, /state, /events; /pipelines/NAME, "
                    known += b"/pipelines/NAME/state, .../history, .../events\n"
                self._answer(404, "text/plain", known)

    def _of_all(self, site: Site, path: str) -> bool:
        """Answer a request for all of several pipelines; return False if it is none."""
        if not site.several:
            return False
        match path:
            case "/" if site.recorder:
                asset = find_asset("/static/pipelines.html")
                assert asset
                self._answer(200, *asset)
            case "/state" if site.recorder:
                self._answer(200, _JSON, encode({"pipelines": site.recorder.moments()}))
            case "/state" if site.take:
                taken = {name: {"snapshot": one} for name, one in site.take().items()}
                self._answer(200, _JSON, encode({"pipelines": taken}))
            case "/events" if site.recorder:
                self._stream_to_client(partial(self._stream_all, site.recorder))
            case _:
                return False
        return True

    def _of_one(self, site: Site, path: str) -> bool:
        """Answer a request for one pipeline; return False if it is none, or has no such name."""
        recorder = site.recorder
        name, rest = _pipeline_of(path)
        if name is None and site.several:
            return False
        if rest == "tap" and site.tapped:
            rows = site.tapped(name, self._since())
            if rows is None:
                return False
            self._answer(200, _JSON, encode(TappedRows(rows)))
            return True
        if recorder is None:
            if rest != "state" or name is not None or site.take is None:
                return False
            [snapshot] = site.take().values()
            self._answer(200, _JSON, encode({"snapshot": snapshot}))
            return True
        track = recorder.only if name is None else recorder.tracks.get(name)
        if track is None:
            return False
        match rest:
            case "" if name is not None and (asset := find_asset("/")):
                self._answer(200, *asset)
            case "state":
                self._answer(200, _JSON, encode(track.moment))
            case "history":
                self._answer(200, _JSON, encode(track.history()))
            case "events":
                self._stream_to_client(partial(self._stream, track))
            case _:
                return False
        return True

    def _since(self) -> float:
        """Return the time that a request for rows names, seconds since the epoch; else 0."""
        [text] = parse_qs(self.path.partition("?")[2]).get("since", ["0"])[:1]
        try:
            return float(text)
        except ValueError:
            return 0.0

    def _stream_to_client(self, stream: Callable[[], None]) -> None:
        with place(self.server.streams) as room:
            if room:
                stream()
            else:
                self.turn_away()

    def turn_away(self) -> None:
        """Say that there are too many clients."""
        self._answer(503, "text/plain", b"too many clients\n", {"Retry-After": "5"})

    def _report(self, health: Health) -> None:
        ok, body = health()
        self._answer(200 if ok else 503, _JSON, body + b"\n")

    def _refuse(self, path: str, status: int, what: str) -> None:
        access = self.server.site.access
        if status == 401 and path.startswith("/static/") and (asset := find_asset(path)):
            self._answer(200, *asset)  # the style and icon of the login form; they hold no data
            return
        page = status == 401 and "text/html" in self.headers.get("Accept", "")
        if page and not access.closed and (asset := find_asset("/static/login.html")):
            self._answer(401, *asset)
            return
        headers = {"WWW-Authenticate": 'Bearer realm="sqs2pg"'} if status == 401 else {}
        self._answer(status, "text/plain", f"{what}\n".encode(), headers)

    def post(self) -> None:
        """Check the token from the form, and answer with a cookie."""
        access = self.server.site.access
        path = self.path.partition("?")[0]
        # The form has no cookie yet, so a 401 does not count; Host and Origin are checked.
        refusal = access.refuse(path, self._headers())
        if refusal and refusal.status == 400:
            self._refuse(path, *refusal)
            return
        length = self.headers.get("Content-Length", "")
        small = _LENGTH.fullmatch(length) and int(length) <= _LOGIN_BYTES_MAX
        if path != "/login" or not small or (refusal and refusal.status != 401):
            self._answer(403, "text/plain", b"refused\n")
            return
        form = parse_qs(self.rfile.read(int(length)).decode("utf-8", "replace"))
        if not access.matches(form.get("token", [""])[0]):
            self._answer(303, "text/plain", b"", {"Location": "/?wrong"})
            return
        headers = {"Location": "/", "Set-Cookie": access.cookie()}
        self._answer(303, "text/plain", b"", headers)

    def _stream(self, track: Track) -> None:
        """Send the history, then every new moment, until either side closes."""
        self._begin_stream()
        moment: Moment | None = track.moment
        hello = {
            "history": track.history(),
            "now": moment,
            "every_s": track.every_s,
            "tap": self.server.site.tapped is not None,
        }
        self._event("hello", hello)
        while not track.closed:
            fresh = track.wait(moment, REQUEST_S)
            self._event("moment", fresh)
            moment = fresh or moment

    def _stream_all(self, recorder: Recorder) -> None:
        """Send the moments of all pipelines, now and then whenever there are new ones."""
        self._begin_stream()
        self._event("moments", recorder.moments())
        while not recorder.closed:
            self._event("moments", recorder.wait(REQUEST_S))

    def _begin_stream(self) -> None:
        self._begin(200, "text/event-stream", {})
        self.wfile.write(b"retry: 1000\n\n")

    def _event(self, name: str, value: object) -> None:
        """Send an event; without a value a comment, which finds out whether anybody listens."""
        if value is None:
            self.wfile.write(b": still here\n\n")
            return
        self.wfile.write(b"event: %s\ndata: %s\n\n" % (name.encode(), encode(value)))
        self.wfile.flush()

    def _answer(
        self, status: int, content_type: str, body: bytes, more: dict[str, str] | None = None
    ) -> None:
        self._begin(status, content_type, {"Content-Length": str(len(body)), **(more or {})})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self, status: int, content_type: str, more: dict[str, str]) -> None:
        self.connection.settimeout(REQUEST_S)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        for name, value in (*_HEADERS.items(), *more.items()):
            self.send_header(name, value)
        self.end_headers()


def _pipeline_of(path: str) -> tuple[str | None, str]:
    """Return the name that a path is about, and the rest; None for the only pipeline."""
    match path.split("/")[1:]:
        case ["pipelines", name]:
            return unquote(name), ""
        case ["pipelines", name, rest]:
            return unquote(name), rest
        case [rest]:
            return None, rest
    return None, path
