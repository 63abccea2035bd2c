"""sqs2pg commands in processes of their own, without half a second of imports for each.

One process imports the whole package, once, and forks itself for each command. A command has what
a subprocess has: its own arguments, environment, folder, standard streams, signals and exit code.
It lacks the start of the interpreter, the imports, and the tear-down of the modules at the end. A
test about one of those uses `Shell.afresh`.

Run as a program, this file is that process.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

_REQUEST_BYTES_MAX = 200_000  # an environment and a command line; Linux sends no larger packet
_STATUS = struct.Struct("i")
_READ_BY_THE_INTERPRETER = ("PYTHON", "LD_", "TZ", "LC_", "LANG")
"""How variables begin that a process reads when it starts, so that a fork misses them."""


class ForkServer:
    """The process that has imported everything. `close` ends it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _REQUEST_BYTES_MAX * 2)
        self._socket = ours
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        theirs.close()

    def run(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdin: str,
        timeout_s: float,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; the result is what `subprocess.run` would return."""
        with contextlib.ExitStack() as stack:
            streams: list[IO[bytes]] = [
                stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)
            ]
            streams[0].write(stdin.encode())
            streams[0].seek(0)
            command = ForkedCommand(arguments, self._begin(arguments, folder, environment, streams))
            try:
                code = command.wait(timeout_s)
            except BaseException:
                command.kill()
                command.wait()
                raise
            said = []
            for stream in streams[1:]:
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess([*arguments], code, *said)

    def start(
        self,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        stdout: IO[Any] | None = None,
        stderr: IO[Any] | None = None,
    ) -> ForkedCommand:
        """Start a command without input; a stream for which no file is given is a pipe."""
        with contextlib.ExitStack() as stack:
            nothing = stack.enter_context(Path(os.devnull).open("rb"))
            streams: list[IO[Any]] = [nothing]
            pipes: list[IO[str] | None] = []
            for file in (stdout, stderr):
                end = None
                if file is None:
                    end, file = _pipe(stack)  # noqa: PLW2901
                streams.append(file)
                pipes.append(end)
            return ForkedCommand(
                arguments, self._begin(arguments, folder, environment, streams), *pipes
            )

    def _begin(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        streams: Sequence[IO[Any]],
    ) -> socket.socket:
        """Ask for a command; return the socket on which its number and its end will be told."""
        answer, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            request = json.dumps([list(arguments), str(folder), dict(environment)]).encode()
            files = [*(stream.fileno() for stream in streams), theirs.fileno()]
            socket.send_fds(self._socket, [request], files)
        return answer

    def close(self) -> None:
        self._socket.close()
        self._process.wait(timeout=60)


class ForkedCommand(subprocess.Popen[str]):
    """A command that runs, with the methods of `subprocess.Popen`; its streams are text.

    It is no child of ours: a process that waits for it tells us how it ended. Until we have heard
    that, its number stays taken, so that a signal reaches no other process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        answer: socket.socket,
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        # Not super().__init__, which starts a program.
        self.args = [*arguments]
        self.stdin, self.stdout, self.stderr = None, stdout, stderr
        self.returncode: Any = None
        self._answer = answer
        self._readers: list[_Reader] = []
        (self.pid,) = _STATUS.unpack(answer.recv(_STATUS.size))

    def __del__(self) -> None:
        self._answer.close()

    def poll(self) -> int | None:
        """Return how it ended, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end; return the exit code, negative for a signal."""
        if self.returncode is None:
            self._answer.settimeout(timeout)
            try:
                (self.returncode,) = _STATUS.unpack(self._answer.recv(_STATUS.size))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._answer.close()
        return int(self.returncode)

    def communicate(
        self,
        input: Any = None,  # noqa: A002  the name that the method of the base class has
        timeout: float | None = None,
    ) -> tuple[Any, Any]:
        """Read both streams to their ends and wait for the command.

        None stands for a stream that is no pipe. After a timeout it may be called again.
        """
        assert input is None, "it has no stdin"
        deadline = time.monotonic() + (threading.TIMEOUT_MAX / 2 if timeout is None else timeout)
        if not self._readers:
            self._readers = [_Reader(stream) for stream in (self.stdout, self.stderr)]
        for reader in self._readers:
            reader.join(max(0.0, deadline - time.monotonic()))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        self.wait(max(0.0, deadline - time.monotonic()))
        return self._readers[0].text, self._readers[1].text

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


class _Reader(threading.Thread):
    """Reads a stream to its end and closes it."""

    def __init__(self, stream: IO[str] | None) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self.text: str | None = None
        self.start()

    def run(self) -> None:
        if self._stream is not None:
            with self._stream:
                self.text = self._stream.read()


def _pipe(stack: contextlib.ExitStack) -> tuple[IO[str], IO[str]]:
    """Make a pipe; the stack closes only its second end, the one to write to."""
    end, start = os.pipe()
    return os.fdopen(end, encoding="utf-8"), stack.enter_context(os.fdopen(start, "w"))


def fits(environment: Mapping[str, str]) -> bool:
    """Whether a fork of a process with our environment can stand for a process with this one."""
    return _of_the_interpreter(environment) == _of_the_interpreter(os.environ)


def _of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_READ_BY_THE_INTERPRETER)
    }


# -- in the process that forks ---------------------------------------------------------------------


def _serve(requests: socket.socket) -> None:
    """Fork for each request until the tests are gone; return in the command's process only."""
    _import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the end of these
    gc.collect()
    gc.freeze()  # a collection of a fork would copy every page
    while True:
        request, files, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 4)
        if not request:
            sys.exit()
        if os.fork() == 0:
            break
        for file in files:
            os.close(file)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    requests.close()
    with socket.socket(fileno=files.pop()) as answer:
        if pid := os.fork():
            for file in files:
                os.close(file)  # a pipe ends when the command does
            with contextlib.suppress(OSError):  # nobody listens any more
                _tell_end(answer, pid)
            os._exit(0)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    arguments, folder, environment = json.loads(request)
    _become(arguments, folder, environment)


def _tell_end(answer: socket.socket, pid: int) -> None:
    """Tell the number of the process and, when it has ended, how. It is reaped after that."""
    answer.send(_STATUS.pack(pid))
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    exited = ended.si_code == os.CLD_EXITED
    answer.send(_STATUS.pack(ended.si_status if exited else -ended.si_status))
    answer.recv(1)  # until the other end is closed


def _become(arguments: list[str], folder: str, environment: dict[str, Any]) -> None:
    """Run the command and leave as `python -m sqs2pg` would, but for the tear-down of modules."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["sqs2pg", *arguments]
    from sqs2pg.cli import main

    code: object = 1
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code
    except BaseException:  # noqa: BLE001  as the interpreter ends with it
        sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
    finally:
        # What the end of the interpreter does; os._exit does not.
        threading._shutdown()  # noqa: SLF001  Python has no public name for it
        atexit._run_exitfuncs()  # noqa: SLF001  Python has no public name for it
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(ValueError):  # closed
                stream.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _import_everything() -> None:
    import sqs2pg

    for module in pkgutil.walk_packages(sqs2pg.__path__, "sqs2pg."):
        if not module.name.endswith("__main__"):
            with contextlib.suppress(ImportError):  # of an extra that is not installed
                importlib.import_module(module.name)
    if sys.platform == "linux":
        [_only] = Path("/proc/self/task").iterdir()  # a fork would lose other threads


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
