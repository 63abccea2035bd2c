"""The grants that the pipeline needs: the smallest IAM policy and SQL, to paste."""

from __future__ import annotations

from typing import Any

from sqs2pg.postgres.target_grants import target_grants, temporary_grant
from sqs2pg.settings import Settings

_SQS = (
    "sqs:ReceiveMessage",
    "sqs:DeleteMessage",
    "sqs:ChangeMessageVisibility",
    "sqs:GetQueueAttributes",
    "sqs:GetQueueUrl",
)


def iam_policy(settings: Settings, queue_arn: str) -> dict[str, Any]:
    """Return the IAM policy of a pipeline: its queue, and what its envelope and keys need."""
    statements: list[dict[str, Any]] = [
        {"Sid": "Queue", "Effect": "Allow", "Action": list(_SQS), "Resource": queue_arn}
    ]
    envelope = settings.envelope
    partition = queue_arn.split(":")[1]
    if envelope.has_pointers:
        actions = ["s3:GetObject", *(["s3:DeleteObject"] if envelope.s3_delete else [])]
        buckets = [
            name if name.startswith("arn:") else f"arn:{partition}:s3:::{name}"
            for name in envelope.s3_buckets or ("BUCKET",)
        ]
        statements.append(
            {
                "Sid": "Payloads",
                "Effect": "Allow",
                "Action": actions,
                "Resource": [f"{bucket}/*" for bucket in buckets],
            }
        )
        statements.append(
            {
                "Sid": "PayloadsMissing",
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": buckets,
            }
        )
    if envelope.has_objects:
        buckets = [f"arn:{partition}:s3:::{name}" for name in envelope.s3_buckets]
        statements += [
            {
                "Sid": "Objects",
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:GetObjectVersion"],
                "Resource": [f"{bucket}/*" for bucket in buckets],
            },
            {
                "Sid": "ObjectsMissing",
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": buckets,
            },
            # Which key a bucket's objects are encrypted under, only S3 knows.
            {
                "Sid": "ObjectsEncrypted",
                "Effect": "Allow",
                "Action": "kms:Decrypt",
                "Resource": f"arn:{partition}:kms:*:*:key/*",
                "Condition": {
                    "StringLike": {"kms:ViaService": "s3.*.amazonaws.com"},
                    "ForAnyValue:StringLike": {
                        "kms:EncryptionContext:aws:s3:arn": [
                            each for bucket in buckets for each in (bucket, f"{bucket}/*")
                        ]
                    },
                },
            },
        ]
    if settings.keys.provider == "aws-kms":
        statements.append(
            {
                "Sid": "Keys",
                "Effect": "Allow",
                "Action": "kms:Decrypt",
                "Resource": settings.keys.kms_key or "KEY_ARN",
            }
        )
    if settings.keys.provider == "secrets-manager":
        statements.append(
            {
                "Sid": "Keys",
                "Effect": "Allow",
                "Action": "secretsmanager:GetSecretValue",
                "Resource": settings.keys.secret or "SECRET_ARN",
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def sql_grants(settings: Settings, role: str = "pipeline") -> list[str]:
    """Return the SQL that makes a login with the least privilege, after `migrate` has run."""
    return [
        f"CREATE ROLE {role} LOGIN",
        f"GRANT sqs2pg_ingest TO {role}",
        temporary_grant(settings),
        *target_grants(settings),
    ]
