"""Builds, starts, stops and controls the C queue server.

The benchmarks, and the tests that need a fast or faulty SQS, start the server here.
Promises: one build per state of the sources, however many processes ask for it at once; a child
process that ends with its parent, even after kill -9; loopback only.
"""

from __future__ import annotations

import ctypes.util
import dataclasses
import hashlib
import http.client
import importlib.util
import json
import os
import shlex
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
BUILD = HERE / "build"
FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror")
START_S = 60.0
"""Longest wait for the line `listening PORT`, which usually takes a few milliseconds."""
STOP_S = 30.0
CONTROL_S = 600.0
"""Longest wait for a control answer: a fill of millions of messages takes seconds."""

Json = Mapping[str, Any]


class BuildError(RuntimeError):
    """The server could not be compiled; the text includes the compiler's output."""


def compiler() -> list[str]:
    """Return the command of a C compiler: `$CC`, else one on PATH, else the `ziglang` wheel's.

    Raises BuildError when there is none.
    """
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    try:
        import ziglang  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
    except ImportError:
        raise BuildError(
            "no C compiler found: install one (Debian: apt install gcc libc6-dev), "
            "or `pip install ziglang`, or set CC"
        ) from None
    return [sys.executable, "-m", "ziglang", "cc"]


def build() -> Path:
    """Compile the server, unless these sources were compiled before; return the binary's path.

    `QUEUE_SERVER_CFLAGS` in the environment adds flags, such as a sanitizer's; each set of flags
    has a build of its own. Safe to call from several processes at once. Raises BuildError.
    """
    command = [*compiler(), *FLAGS, *shlex.split(os.environ.get("QUEUE_SERVER_CFLAGS", ""))]
    sources = sorted(HERE.glob("*.[ch]"))
    state = hashlib.sha256("\0".join(command).encode())
    for source in sources:
        state.update(source.name.encode() + b"\0" + source.read_bytes())
    binary = BUILD / f"queue_server-{state.hexdigest()[:16]}"
    if binary.exists():
        return binary
    BUILD.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        made = Path(folder) / "queue_server"
        units = [str(source) for source in sources if source.suffix == ".c"]
        done = subprocess.run(
            [*command, *units, "-o", str(made), "-ldl"], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(f"the queue server does not compile:\n{done.stderr}")
        made.replace(binary)
    return binary


def find_libssl() -> Path | None:
    """Return the libssl inside psycopg's binary wheel, for `--tls` on a system without one."""
    found = importlib.util.find_spec("psycopg_binary")
    if found is None or found.origin is None:
        return None
    folder = Path(found.origin).parent.parent / "psycopg_binary.libs"
    return next(iter(sorted(folder.glob("libssl*.so*"))), None)


@dataclasses.dataclass(frozen=True, slots=True)
class ManifestLine:
    """What the server knows about one message that was ever sent to it."""

    message_id: str
    body_md5: str
    deletes: int
    receives: int
    kind: str
    """`login` or `malformed` if a fill generated the message, `sent` if a call sent it."""
    queue: str


class QueueServer:
    """One running queue server; use it as a context manager or call `start` and `stop`.

    `options` are passed on its command line (`--help` lists them). With `certificate` and `key`
    (PEM files) it speaks TLS; the control calls made here then trust `ca`.
    """

    def __init__(
        self,
        *options: str,
        certificate: Path | None = None,
        key: Path | None = None,
        ca: Path | None = None,
        binary: Path | None = None,
    ) -> None:
        self._options = list(options)
        self._tls: ssl.SSLContext | None = None
        self._binary = binary
        if certificate and key:
            self._tls = ssl.create_default_context(cafile=ca)
            self._options += ["--tls", str(certificate), str(key)]
        self._process: subprocess.Popen[str] | None = None
        self.port = 0

    @property
    def endpoint_url(self) -> str:
        """The endpoint URL for an SQS client."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process id, for measuring or killing the server."""
        assert self._process is not None, "the queue server was not started"
        return self._process.pid

    def start(self) -> Self:
        """Compile if needed and start; return once it listens. Raises BuildError, RuntimeError."""
        command = [str(self._binary or build()), *self._options, "--exit-with-stdin"]
        # The kernel ties a child to the thread that started it, not to its process: a worker
        # thread that ends would kill the server. The end of standard input works for every thread.
        if threading.current_thread() is threading.main_thread():
            command.append("--die-with-parent")
        libssl = find_libssl() if self._tls else None
        if libssl and not _system_has_libssl():
            command += ["--libssl", str(libssl)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        watchdog = threading.Timer(START_S, self._process.kill)
        watchdog.start()
        words = self._process.stdout.readline().split()
        watchdog.cancel()
        if len(words) != 2 or words[0] != "listening":
            self.stop()
            raise RuntimeError("the queue server did not start; stderr says why")
        self.port = int(words[1])
        return self

    def stop(self) -> int | None:
        """End the server; return its exit status (negative: a signal). May be called again."""
        process, self._process = self._process, None
        if process is None:
            return None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # it exits when standard input ends
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        return process.returncode

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def call(self, name: str, arguments: Mapping[str, object]) -> Json:
        """Make one unsigned SQS call; return the members of the answer. Raises ValueError."""
        headers = {
            "X-Amz-Target": f"AmazonSQS.{name}",
            "Content-Type": "application/x-amz-json-1.0",
        }
        return self._request("POST", "/", arguments, headers)

    def fill(self, queue: str, count: int, **options: float | bool | str) -> Json:
        """Put `count` generated logins on the named queue; return when they are there.

        Options: `malformed_share` (0 to 1), `people`, `seed`, `pad_bytes`, `groups` (FIFO),
        `rate_per_s`, `sent_ms_ago`, `background`, `template`: the body with `$` for the login, `%`
        for it inside a JSON string, `@` for it without its opening brace. Returns `messages`,
        `malformed`, `body_bytes`.
        """
        return self._call("POST", "fill", {"queue": queue, "count": count, **options})

    def set_faults(self, call: str = "*", **faults: float | bool) -> Json:
        """Set faults for one call or for all: `latency_ms`, `throttle_share`, `error_share`,
        `lose_reply_share`, `fail_entry_share`, `duplicate_share`, `times`, `seed`, `reset`.

        Returns the faults that are set, and how often each has fired.
        """
        return self._call("POST", "faults", {"call": call, **faults})

    def faults(self) -> Json:
        """Return the faults that are set, and how often each has fired."""
        return self._call("GET", "faults")

    def stats(self) -> Json:
        """Return counters, messages by state and requests by call, CPU seconds, peak bytes."""
        return self._call("GET", "stats")

    def wait(
        self,
        counter: str,
        *,
        at_least: int | None = None,
        at_most: int | None = None,
        queue: str | None = None,
        timeout_s: float = 60.0,
    ) -> Json:
        """Wait until a counter of `stats` reaches a bound; return the stats and `reached`."""
        asked = {"at_least": at_least, "at_most": at_most, "queue": queue}
        plan = {"counter": counter, "timeout_ms": int(timeout_s * 1000)}
        plan |= {name: value for name, value in asked.items() if value is not None}
        return self._call("POST", "wait", plan)

    def manifest(self) -> Iterator[ManifestLine]:
        """Yield every message ever sent, in order; the server needs the option `--manifest`."""
        connection = self._connect()
        try:
            connection.request("GET", "/_control/manifest")
            for line in connection.getresponse():
                message_id, body_md5, deletes, receives, kind, queue = line.decode().split()
                yield ManifestLine(message_id, body_md5, int(deletes), int(receives), kind, queue)
        finally:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._tls:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=CONTROL_S, context=self._tls
            )
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=CONTROL_S)

    def _call(self, method: str, name: str, body: Mapping[str, object] | None = None) -> Json:
        return self._request(method, f"/_control/{name}", body, {})

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str],
    ) -> Json:
        connection = self._connect()
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, dict(headers))
            response = connection.getresponse()
            answer: dict[str, Any] = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            why = answer.get("error") or answer.get("message")
            raise ValueError(f"queue server, {path}: {why}")
        return answer


def _system_has_libssl() -> bool:
    return ctypes.util.find_library("ssl") is not None
