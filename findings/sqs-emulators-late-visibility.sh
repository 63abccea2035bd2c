#!/usr/bin/env bash
# moto 5.2.5 (PyPI) and ElasticMQ 1.6.12 (Maven): extending a visibility timeout that has already run out
# succeeds, and hides the message again.
#
# Expected: an error, MessageNotInflight: the message is in the queue, and any other consumer may have it.
#   Source: Amazon SQS API Reference, ChangeMessageVisibility, Errors; Developer Guide, "Amazon SQS visibility
#   timeout" (a receipt handle belongs to one receive of the message).
# Seen: both accept it and nobody receives the message for the new time. So a heartbeat that comes too late
#   looks fine in tests, and a consumer that goes on with a message which is no longer its own is never found
#   out. On moto the old receipt handle works even after another consumer has received the message: set to 0,
#   it makes the other one's message visible in the middle of its work. ElasticMQ refuses that one.
#
# It needs Java 11 or newer and Maven.
set -euo pipefail
command -v java >/dev/null && command -v mvn >/dev/null || { echo "this needs Java and Maven" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check moto==5.2.5 boto3==1.44.8
cat >"$folder/pom.xml" <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>finding</groupId><artifactId>finding</artifactId><version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.elasticmq</groupId><artifactId>elasticmq-server_2.13</artifactId><version>1.6.12</version>
    </dependency>
  </dependencies>
</project>
XML
mvn --batch-mode --quiet -f "$folder/pom.xml" "-Dmaven.repo.local=$folder/maven" \
  dependency:copy-dependencies "-DoutputDirectory=$folder/jars" >"$folder/maven.log"
export AWS_ACCESS_KEY_ID=none AWS_SECRET_ACCESS_KEY=none AWS_DEFAULT_REGION=us-east-1
"$folder/env/bin/python" -W ignore - "$folder" <<'PY'
import pathlib
import socket
import subprocess
import sys
import time

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws

FOLDER = pathlib.Path(sys.argv[1])


def change(sqs, url, handle, seconds):
    try:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=seconds)
    except ClientError:
        return "an error"
    return "success"


def seen(sqs):
    url = sqs.create_queue(QueueName="q", Attributes={"VisibilityTimeout": "1"})["QueueUrl"]

    def receive(**options):
        return sqs.receive_message(QueueUrl=url, **options).get("Messages", [])

    sqs.send_message(QueueUrl=url, MessageBody="x")
    [message] = receive()
    time.sleep(1.5)  # the timeout runs out
    late = change(sqs, url, message["ReceiptHandle"], 2)
    hidden = not receive()
    [message] = receive(VisibilityTimeout=1) or receive(VisibilityTimeout=1, WaitTimeSeconds=5)
    time.sleep(1.5)
    [other] = receive(VisibilityTimeout=60)
    stolen = change(sqs, url, message["ReceiptHandle"], 0)
    return late, hidden, stolen, bool(receive(WaitTimeSeconds=1))


def elasticmq():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = FOLDER / "elasticmq.conf"
    settings.write_text(
        f'node-address {{ host = "127.0.0.1", port = {port} }}\n'
        f'rest-sqs {{ bind-hostname = "127.0.0.1", bind-port = {port} }}\nrest-stats.enabled = false\n'
    )
    command = ["java", f"-Dconfig.file={settings}", "-cp", f"{FOLDER}/jars/*", "org.elasticmq.server.Main"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            next(line for line in server.stdout if "Started SQS" in line)
            return seen(boto3.client("sqs", endpoint_url=f"http://127.0.0.1:{port}"))
        finally:
            server.kill()


with mock_aws():
    answers = {"moto": seen(boto3.client("sqs"))}
answers["ElasticMQ"] = elasticmq()
for name, (late, hidden, stolen, visible) in answers.items():
    print(f"{name}: extended too late: {late}, hidden again: {hidden} (expected an error, False)")
    print(f"{name}: set to 0 by the old handle: {stolen}, visible: {visible} (expected no effect: False)")
as_described = {
    "moto": ("success", True, "success", True), "ElasticMQ": ("success", True, "an error", False),
}
sys.exit(0 if answers == as_described else 1)
PY
