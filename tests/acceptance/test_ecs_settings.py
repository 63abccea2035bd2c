"""The ECS template: how the settings files of several pipelines come from S3 into the task."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from deploy.check.cloudformation import ECS, read, variant
from sqs2pg.settings import load_pipelines
from tests.local_aws import aws_client, aws_variables

FILE = '[source]\nqueue = "{0}-queue"\n[sink]\ntable = "{0}"\n'


@pytest.fixture
def bucket(emulator_endpoint: str) -> tuple[Any, str]:
    s3, name = aws_client("s3", emulator_endpoint), f"settings-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    return s3, name


def copy(emulator_endpoint: str, bucket: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Do as the container `settings` does, into a folder."""
    tree = read(ECS.read_text())
    task = variant(tree, several=True)["Resources"]["TaskDefinition"]["Properties"]
    container = task["ContainerDefinitions"][0]
    assert container["Command"] == [{"FindInMap": ["Settings", "Copy", "Code"]}]
    assert container["EntryPoint"] == ["python", "-c"]
    prefix = tree["Parameters"]["PipelinesPrefix"]["Default"]
    return subprocess.run(
        [sys.executable, "-c", tree["Mappings"]["Settings"]["Copy"]["Code"]],
        env={"PATH": os.environ["PATH"], **aws_variables(emulator_endpoint)}
        | {"BUCKET": bucket, "PREFIX": prefix, "SQS2PG_CONFIG": str(folder)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_files_of_the_folder_become_the_task_s_pipelines(
    bucket: tuple[Any, str], emulator_endpoint: str, tmp_path: Path
) -> None:
    s3, name = bucket
    keys = ("logins.toml", "orders.toml", "README.md", "old/logins.toml", "")
    for key in keys:
        body = FILE.format(key.partition(".")[0]).encode()
        s3.put_object(Bucket=name, Key=f"sqs2pg/pipelines/{key}", Body=body)
    s3.put_object(Bucket=name, Key="elsewhere.toml", Body=b"unknown = 1")
    done = copy(emulator_endpoint, name, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert {file.name for file in tmp_path.iterdir()} == {"logins.toml", "orders.toml"}
    found = load_pipelines([tmp_path], {})
    assert {one.source.queue for one in found.values()} == {"logins-queue", "orders-queue"}


def test_a_bucket_that_is_not_there_ends_the_task(emulator_endpoint: str, tmp_path: Path) -> None:
    assert copy(emulator_endpoint, "no-such-bucket", tmp_path).returncode != 0
