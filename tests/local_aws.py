"""Clients of local AWS servers, and the environment that leads to one."""

from __future__ import annotations

from typing import Any

REGION = "us-east-1"
SHORT_POLLS = ("--longest-poll-ms", "200")
"""Options of our queue server. A drain or a stop waits for a poll that brings nothing: 1 s or 2."""


def aws_variables(endpoint_url: str) -> dict[str, str]:
    """Return the variables that point AWS calls at a local server, with made-up keys."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }


def aws_client(service: str, endpoint_url: str, **options: Any) -> Any:
    """Return a boto3 client of one service of a local server."""
    import boto3  # imported only where it is used, because conftest.py imports this module

    return boto3.client(
        service,
        endpoint_url=endpoint_url,
        region_name=REGION,
        aws_access_key_id="test",
        aws_secret_access_key="test",
        **options,
    )
