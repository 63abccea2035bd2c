"""One server process as our child, on loopback; it ends when we end, however that happens.

Every child starts through a short Python program that drops root, asks the kernel to signal it
when its parent dies (PR_SET_PDEATHSIG), checks that the parent has not died before that, and
then becomes the server by exec. The order matters: changing the user clears the death signal.
`preexec_fn` would save the extra 15 ms, but it runs Python between fork and exec, which may
deadlock in a process with threads. Source: prctl(2), PR_SET_PDEATHSIG; subprocess, preexec_fn.

The kernel sends the death signal when the *thread* that started the child ends, so children
start on the main thread only.

A child has its own session: Ctrl-C on the terminal reaches us, not the servers, so a consumer can
still finish its batch. It inherits the lock on the run folder, so that nobody removes the folder
while a server of a killed run has not ended yet.

Must never do: signal a process it did not start, or put a server's output into an exception.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from sqs2pg.cli.embedded.run_folder import Account, RunFolder
from sqs2pg.errors import FatalFault, SettingsError, Sqs2pgError

LAUNCHER = """
import ctypes, os, signal, sys
parent, uid, gid, death_signal = map(int, sys.argv[1:5])
os.umask(0o077)
libc = ctypes.CDLL(None, use_errno=True)
if uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux" and libc.prctl(1, ctypes.c_ulong(death_signal)) != 0:
    sys.exit("prctl failed")
if os.getppid() != parent:
    sys.exit("the parent is gone")
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, ())
os.execv(sys.argv[5], sys.argv[5:])
"""
_LAST_WORDS_BYTES_MAX = 64 * 1024
_POLL_S = 0.01


class Child:
    """One server process and its log.

    `argv[0]` is an absolute path. `environment` is all the child sees of ours. `account` is the
    user to become, None for our own. `death_signal` is what the kernel sends when we die.
    """

    def __init__(
        self,
        name: str,
        folder: RunFolder,
        *,
        log_file: Path,
        environment: Mapping[str, str],
        death_signal: signal.Signals,
        account: Account | None = None,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._folder = folder
        self._environment = dict(environment)
        self._death_signal = death_signal
        self._account = account
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended; reaps it when it has."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id.

        Raises:
            FatalFault: it is not running.
        """
        if self._process is None or not self.running:
            raise FatalFault(f"the local {self.name} is not running", code="local_stopped")
        return self._process.pid

    def start(self, argv: Sequence[str | Path]) -> None:
        """Start the process; returns at once.

        Raises:
            SettingsError: not on the main thread.
        """
        require_main_thread()
        uid, gid = (self._account.uid, self._account.gid) if self._account else (0, 0)
        numbers = (os.getpid(), uid, gid, int(self._death_signal))
        launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, *map(str, numbers)]
        log = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            with signals_held():
                self._process = subprocess.Popen(  # noqa: S603 - our own argument list, no shell
                    [*launch, *map(str, argv)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self._environment,
                    cwd=self._folder.path,
                    pass_fds=[self._folder.lock],
                    start_new_session=True,
                )
        finally:
            os.close(log)

    def wait(self, seconds: float) -> int | None:
        """Return the exit status, or None when the process still runs after `seconds`."""
        if self._process is None:
            return 0
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def wait_until(self, ready: Callable[[], bool], *, deadline: float) -> bool:
        """Whether `ready` came true before the process ended; asked every 10 ms.

        `deadline` is on the monotonic clock.

        Raises:
            FatalFault: the deadline passed.
        """
        while time.monotonic() < deadline:
            if ready():
                return True
            if self.wait(_POLL_S) is not None:
                return False
        raise self.fault("did not answer in time", code="local_start")

    def stop(self, ending: signal.Signals, *, grace_s: float) -> None:
        """End the process: `ending` first, SIGKILL to its whole session after `grace_s` seconds.

        Harmless when it has ended already.
        """
        if not self.running:
            return
        assert self._process is not None
        self._process.send_signal(ending)
        if self.wait(grace_s) is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def fault(self, what: str, *, code: str) -> Sqs2pgError:
        """Return a fault about this process that quotes nothing but the place of its log."""
        return FatalFault(
            f"the local {self.name} {what}",
            code=code,
            hint=f"its log is kept in {self._keep_log()}",
        )

    def _keep_log(self) -> Path:
        """Copy the end of the log out of the run folder, which is removed when we leave."""
        kept = self._folder.path.with_name(f"{self._folder.path.name}.{self.log_file.name}")
        with contextlib.suppress(OSError):
            text = self.log_file.read_bytes()[-_LAST_WORDS_BYTES_MAX:]
            target = os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(target, "wb") as file:
                file.write(text)
        return kept


class LocalServer(ABC):
    """A server on a port of 127.0.0.1, started in two steps: `begin`, and `finish` to wait."""

    _child: Child
    _port: socket.socket

    @property
    def pid(self) -> int:
        """Process id. Raises FatalFault when it is not running."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether the server is running."""
        return self._child.running

    @property
    def port(self) -> int:
        """TCP port on 127.0.0.1."""
        port: int = self._port.getsockname()[1]
        return port

    def start(self) -> None:
        """Start the server and return when it answers.

        Raises:
            FatalFault: it ended at once or did not answer in 60 seconds.
            SettingsError: not on the main thread.
        """
        self.begin()
        self.finish()

    @abstractmethod
    def begin(self) -> None:
        """Start what has to be started; return at once."""

    @abstractmethod
    def finish(self) -> None:
        """Wait until the server that `begin` started answers."""


def reserve_port() -> socket.socket:
    """Return a socket that holds a free port of 127.0.0.1 without listening on it.

    On Linux a server of ours can listen on the port while we hold it, because both sides set
    SO_REUSEADDR and only one listens. Nobody else gets the port meanwhile, not even between a stop
    and a start. Source: socket(7), SO_REUSEADDR. Elsewhere the hold is released at once.
    """
    holder = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    return holder


def require_main_thread() -> None:
    """Check that this is the main thread.

    Raises:
        SettingsError: it is not: the servers would die with the thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise SettingsError(
            "local servers must be started on the main thread",
            code="local_thread",
            hint="the kernel ends them when the thread that started them ends; start them first, "
            "then the threads",
        )


_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextlib.contextmanager
def signals_held() -> Iterator[None]:
    """Delay SIGINT, SIGTERM and SIGHUP until the block is left; then their handlers run.

    Python's handlers are swapped instead of blocking the signals, because a block covers one
    thread only and would be inherited by the child. A handler is called, not the signal raised
    again: an event loop has seen it already and would count it twice.
    """
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    handlers = {
        number: handler for number in _ENDINGS if callable(handler := signal.getsignal(number))
    }
    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for seen in arrived:
            handlers[signal.Signals(seen)](seen, None)


@contextlib.contextmanager
def signals_unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave the block in order, as SystemExit(128 + number).

    Only where they would otherwise end the process on the spot; a caller's own handler stays.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    taken = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in taken:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number in taken:
            if signal.getsignal(number) is leave:
                signal.signal(number, signal.SIG_DFL)
