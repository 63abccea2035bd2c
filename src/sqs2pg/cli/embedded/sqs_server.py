"""A throwaway SQS: ministack as our child, on loopback, its state in memory only.

ministack also serves S3, SNS, KMS, Secrets Manager, STS and IAM on the same port, for tests of
those. Everything else it would start is off: the MQTT and SFTP listeners bind every interface on
fixed ports, persistence writes to disk, and its container reaper would remove containers from the
user's Docker.

It is fast up to a backlog of a few thousand messages; its receive cost grows with the backlog.

Must never do: pass on our environment. It holds the user's AWS credentials, and variables that
would turn the listeners on again.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path

import sqs2pg
from sqs2pg.cli.embedded.child_process import Child, LocalServer, require_main_thread, reserve_port
from sqs2pg.cli.embedded.postgres_binaries import INSTALL_HINT
from sqs2pg.cli.embedded.run_folder import RunFolder
from sqs2pg.errors import SettingsError

REGION = "us-east-1"
_SERVICES = "sqs,sns,s3,events,monitoring,kms,secretsmanager,sts,iam"
FAST_SERVER = Path(sqs2pg.__file__).with_name("_queue_server")
"""Compiled from benchmarks/queue_server when the package is installed; may be missing."""
_START_S_MAX = 60.0
_ATTEMPTS_MAX = 5
# What Python needs to find the package that we found. HOME leads to the user's site-packages.
_PASSED_ON = ("PATH", "HOME", "LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONNOUSERSITE")


class SqsServer(LocalServer):
    """One SQS-compatible server; the same port over restarts, but queues do not survive one.

    Raises:
        SettingsError: ministack is not installed.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._require()
        self._folder = folder
        self._identity = secrets.token_hex(8)
        self._answered = False
        self._port = reserve_port()
        self._child = self._make_child()

    @property
    def log_file(self) -> Path:
        """The server's log, 0600, warnings only."""
        return self._folder.path / "sqs.log"

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:port`, for AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start the server; return at once."""
        require_main_thread()
        if not self.running:
            self._child.start(self._command())

    def finish(self) -> None:
        """Wait until the server that `begin` started answers ListQueues."""
        deadline = time.monotonic() + _START_S_MAX
        for _ in range(_ATTEMPTS_MAX):
            if self._child.wait_until(self._answers, deadline=deadline):
                self._answered = True
                return
            if not self._answered:  # somebody took the port
                self._port.close()
                self._port = reserve_port()
                self._child = self._make_child()
            self.begin()
        raise self._child.fault("ended at once, again and again", code="local_start")

    def stop(self) -> None:
        """Kill the server; harmless when it is stopped. It has nothing to save."""
        self._child.stop(signal.SIGKILL, grace_s=5)

    def close(self) -> None:
        """Stop for good, and release the port."""
        self.stop()
        self._port.close()

    def _require(self) -> None:
        """Raise SettingsError unless the server is installed."""
        if importlib.util.find_spec("ministack") is None:
            raise SettingsError(
                "the local SQS server is not installed", code="local_missing", hint=INSTALL_HINT
            )

    def _command(self) -> list[str | Path]:
        """Return the command that starts the server on our port."""
        # -P: a file of the current folder must not stand in for one of its modules.
        return [sys.executable, "-P", "-m", "ministack"]

    def _make_child(self) -> Child:
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        if search := os.environ.get("PYTHONPATH"):  # relative to our folder, not to the child's
            environment["PYTHONPATH"] = os.pathsep.join(
                str(Path(entry).absolute()) for entry in search.split(os.pathsep)
            )
        environment |= {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_HOST": "127.0.0.1",  # for its URLs; its default needs a name lookup
            "MINISTACK_REGION": REGION,
            "MINISTACK_EDITION": self._identity,
            "SERVICES": _SERVICES,
            "IOT_MTLS_ENABLED": "0",
            "SFTP_ENABLED": "0",
            "PERSIST_STATE": "0",
            "S3_PERSIST": "0",
            "DOCKER_HOST": f"unix://{self._folder.path}/no-docker",
            "LOG_LEVEL": "WARNING",
            "TMPDIR": str(self._folder.path),  # a pid file
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        return Child(
            "SQS server",
            self._folder,
            log_file=self.log_file,
            environment=environment,
            death_signal=signal.SIGKILL,
        )

    def _answers(self) -> bool:
        """Whether the server on the port is ours and lists its queues."""
        import http.client  # not at the top: `send` makes logins and starts no server

        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            # The edition is free text that it reports; here it identifies the server.
            connection.request("GET", "/_ministack/health")
            health = json.loads(connection.getresponse().read())
            if not isinstance(health, dict) or health.get("edition") != self._identity:
                return False
            headers = {
                "Content-Type": "application/x-amz-json-1.0",
                "X-Amz-Target": "AmazonSQS.ListQueues",
            }
            connection.request("POST", "/", body=b"{}", headers=headers)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException, ValueError):
            return False
        finally:
            connection.close()
        return response.status == http.client.OK


class FastSqsServer(SqsServer):
    """Our own queue server, written in C: its rate does not fall with the backlog. It has SQS only.

    Raises:
        SettingsError: this installation has none: it was made without a C compiler.
    """

    def _require(self) -> None:
        if not os.access(FAST_SERVER, os.X_OK):
            raise SettingsError(
                "the fast queue server is not part of this installation",
                code="local_missing",
                hint="it is compiled when sqs2pg is installed on Linux from its sources: install a "
                "C compiler or `pip install ziglang`, and install sqs2pg again; or use --local",
            )

    def _command(self) -> list[str | Path]:
        return [FAST_SERVER, "--port", str(self.port), "--region", REGION]

    def _answers(self) -> bool:
        """Whether our process has said that it listens; a process that cannot has ended."""
        try:
            if f"listening {self.port}" not in self.log_file.read_text("utf-8").splitlines():
                return False
            # The line may be that of an earlier start on the same port, which is ours alone.
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
        except OSError:
            return False
        return True
