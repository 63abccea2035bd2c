"""AWS Signature Version 4, split into the parts that change and those that do not.

Place in the flow: the client makes one `RequestTemplate` per operation at start. Each request then
takes the hash of its body and two short ones: what the requests of a second have in common is
hashed once.

Promises: the signature equals the one the AWS SDKs make for the same request. The canonical
request and the key derivation follow "Create a signed AWS API request" in the IAM User Guide
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html);
AWS's published vectors are in the tests. Never logs or shows a secret.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from sqs2pg import __version__
from sqs2pg.keys.hmac_state import hmac_states

if TYPE_CHECKING:
    from _hashlib import HASH

ALGORITHM = "AWS4-HMAC-SHA256"
USER_AGENT = f"sqs2pg/{__version__}"


class AwsKeys(msgspec.Struct, frozen=True):
    """One set of AWS credentials. Temporary ones have a `token`."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "AwsKeys(…)"

    def __rich_repr__(self) -> Any:
        yield "…"


def derive_signing_key(secret_key: str, date: str, region: str, service: str) -> bytes:
    """Return the 32-byte key for one day (`date` as YYYYMMDD, UTC), region and service."""
    key = f"AWS4{secret_key}".encode()
    for part in (date, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


class _Day(NamedTuple):
    """The parts of a signature that stay the same from midnight to midnight UTC."""

    date: str
    credential: str
    scope: str
    key: bytes


class Signer:
    """Signs for one host, region and service with one set of keys.

    `host` is the Host header as sent: lower case, with the port only if it is not the scheme's own.
    """

    def __init__(self, keys: AwsKeys, *, region: str, host: str, service: str = "sqs") -> None:
        self.keys = keys
        self.region = region
        self.host = host
        self.service = service
        self._second = -1
        self._timestamp = ""
        self._day = _Day("", "", "", b"")

    def timestamp(self, second: int) -> str:
        """Return a time (seconds since the epoch) as SigV4 writes it, `20150830T123600Z`.

        The first call of a day derives that day's key.
        """
        if second != self._second:
            self._timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._second = second
            if not self._timestamp.startswith(self._day.date or "-"):
                self._day = self._begin_day(self._timestamp[:8])
        return self._timestamp

    @property
    def day(self) -> _Day:
        """The day of the last `timestamp`."""
        return self._day

    def _begin_day(self, date: str) -> _Day:
        scope = f"{date}/{self.region}/{self.service}/aws4_request"
        key = derive_signing_key(self.keys.secret_key, date, self.region, self.service)
        return _Day(date, f"{self.keys.access_key}/{scope}", scope, key)


class RequestTemplate:
    """One operation's request, ready except for date, signature, length and body.

    `signed` are the headers that are signed beside host, x-amz-date and x-amz-security-token;
    `unsigned` are sent as they are. `path` is absolute, normalised and percent-encoded. `target`
    is for the request line: an HTTP proxy needs a whole URL there. It is not part of the signature.
    """

    def __init__(
        self,
        signer: Signer,
        *,
        method: str = "POST",
        path: str = "/",
        target: str = "",
        signed: Sequence[tuple[str, str]] = (),
        unsigned: Sequence[tuple[str, str]] = (("User-Agent", USER_AGENT),),
    ) -> None:
        self._signer = signer
        date = "\0"  # marks the place of the date: no header can hold this character
        headers = {name.lower(): " ".join(value.split()) for name, value in signed}
        headers |= {"host": signer.host, "x-amz-date": date}
        if signer.keys.token:
            headers["x-amz-security-token"] = signer.keys.token
        ordered = sorted(headers.items())
        names = ";".join(name for name, _ in ordered)
        canonical = f"{method}\n{path}\n\n"
        canonical += "".join(f"{name}:{value}\n" for name, value in ordered) + f"\n{names}\n"
        self._before_date, self._after_date = canonical.split(date)

        head = [f"{method} {target or path} HTTP/1.1"]
        head += [f"{name}: {value}" for name, value in (*unsigned, *ordered) if value != date]
        self._head = "\r\n".join(head) + "\r\nx-amz-date: "
        self._names = f", SignedHeaders={names}, Signature="
        self._second = -1
        self._states = (b"", sha256(), sha256(), sha256())

    def sign(self, body: bytes, epoch_s: float) -> bytes:
        """Return the whole request as sent, signed as of `epoch_s` (seconds since the epoch)."""
        second = int(epoch_s)
        if second != self._second:
            self._states = self._begin_second(second)
            self._second = second
        head, canonical_state, inner_state, outer_state = self._states
        canonical = canonical_state.copy()
        canonical.update(sha256(body).hexdigest().encode())
        inner = inner_state.copy()
        inner.update(canonical.hexdigest().encode())
        outer = outer_state.copy()
        outer.update(inner.digest())
        signature = outer.hexdigest().encode()
        return b"%b%b\r\ncontent-length: %d\r\n\r\n%b" % (head, signature, len(body), body)

    def _begin_second(self, second: int) -> tuple[bytes, HASH, HASH, HASH]:
        """Hash what the requests of one second have in common.

        Returns the request up to the signature; the state of the canonical request up to the body's
        hash; the states of the signature's HMAC: the inner one up to the canonical request's hash.
        """
        timestamp = self._signer.timestamp(second)
        day = self._signer.day
        head = f"{self._head}{timestamp}\r\nauthorization: {ALGORITHM} Credential={day.credential}"
        inner, outer = hmac_states(day.key)
        inner.update(f"{ALGORITHM}\n{timestamp}\n{day.scope}\n".encode())
        canonical = sha256(f"{self._before_date}{timestamp}{self._after_date}".encode())
        return f"{head}{self._names}".encode(), canonical, inner, outer


class RepeatedRequest:
    """A request whose body never changes, such as a poll of one queue: signed once per second.

    SigV4 counts whole seconds, so signing it again within a second would give the same bytes.
    """

    def __init__(self, template: RequestTemplate, body: bytes) -> None:
        self._template = template
        self._body = body
        self._second = -1
        self._wire = b""

    def sign(self, epoch_s: float) -> bytes:
        """As `RequestTemplate.sign`."""
        second = int(epoch_s)
        if second != self._second:
            self._wire = self._template.sign(self._body, second)
            self._second = second
        return self._wire
