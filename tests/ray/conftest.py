"""A cluster of several nodes on this machine, and their environment.

Ray tests run in an environment of their own: `make test-ray`. Elsewhere they are not there. Nodes
are Ray's own (`ray.cluster_utils`): each a raylet with processes of its own.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.queue_server import QueueServer
from sqs2pg.keys import provider_file
from sqs2pg.runners import ray_fleet as engine
from tests.local_aws import aws_variables

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("ray") is None else []

QUEUE = "logins"
WAIT_S = 120.0
BATCH_ROWS = 25
NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
# Ray's own: sockets of processes it has killed, and its deprecations.
IGNORED = [
    *("ResourceWarning", "DeprecationWarning", "FutureWarning"),
    "pytest.PytestUnraisableExceptionWarning",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/ray/" in str(item.path):
            for warning in IGNORED:
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{warning}"))


@pytest.fixture(scope="module")
def server() -> Iterator[QueueServer]:
    with QueueServer("--manifest") as running:
        yield running


@pytest.fixture
def environment(
    tmp_path: Path, database: str, server: QueueServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """What every node of the cluster finds in its environment, and we in ours."""
    keys = tmp_path / "sqs2pg.keys"
    provider_file.create(keys)
    for name in [n for n in os.environ if n.startswith(("AWS_", "PG", "SQS2PG_"))]:
        monkeypatch.delenv(name)
    variables = {
        **aws_variables(server.endpoint_url),
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "DATABASE_URL": database,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DEDUP_LOGS": "0",
        # A node that is killed is missed after two seconds.
        "RAY_health_check_initial_delay_ms": "0",
        "RAY_health_check_period_ms": "500",
        "RAY_health_check_failure_threshold": "4",
        "SQS2PG_SOURCE__QUEUE": QUEUE,
        "SQS2PG_SOURCE__VISIBILITY_TIMEOUT_S": "5",
        "SQS2PG_SOURCE__WAIT_TIME_S": "1",
        # Slow on purpose, so that the load outlasts the changes of nodes.
        "SQS2PG_SINK__CONNECTIONS": "1",
        "SQS2PG_SINK__BATCH_ROWS_MAX": str(BATCH_ROWS),
        "SQS2PG_SOURCE__IN_FLIGHT_MESSAGES_MAX": "200",
        "SQS2PG_STATUS__BIND": "",
        "SQS2PG_KEYS__FILE": str(keys),
        "SQS2PG_SHUTDOWN_GRACE_S": "10",
        "SQS2PG_RAY__EVERY_S": "0.3",
        "SQS2PG_RAY__CATCH_UP_S": "1",
        "SQS2PG_RAY__CONSUMERS_MAX": "6",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def queue(server: QueueServer, environment: dict[str, str]) -> Iterator[str]:
    url = server.call("CreateQueue", {"QueueName": QUEUE})["QueueUrl"]
    yield url
    server.call("DeleteQueue", {"QueueUrl": url})


@pytest.fixture
def cluster(environment: dict[str, str]) -> Iterator[Cluster]:
    """A head that holds no consumers, and one node."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster

        made = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20},
        )
        made.add_node(**NODE)
        engine.join(made.address)
        yield made
        engine.leave()
        made.shutdown()
