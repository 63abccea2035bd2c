"""The handler's documented address for AWS Lambda: `sqs2pg.aws_lambda.handler`."""

from __future__ import annotations

from sqs2pg.runners.aws_lambda import handler

__all__ = ["handler"]
