"""A database password from AWS IAM: RDS, Aurora and RDS Proxy accept it for a login.

The token is a presigned request that is never sent. It is valid for fifteen minutes; a session that
is open then stays open. Source: Amazon RDS user guide, "Connecting to your DB instance using IAM
authentication".
Must never show a token: it is a password.
"""

from __future__ import annotations

import os
from urllib.parse import quote

import botocore.exceptions
import botocore.session
import botocore.signers
from botocore.model import ServiceId

from sqs2pg.errors import SettingsError, TransientFault

TOKEN_S = 900
"""RDS's limit on the life of a token."""


def login_token(host: str, port: int, user: str) -> str:
    """Return a token for a login of `user` at `host`. Blocking: credential providers do I/O.

    Raises SettingsError without a region or credentials, TransientFault if the credentials are not
    available now.
    """
    session = botocore.session.Session()
    region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
    if not region:
        raise SettingsError(
            "no AWS region is configured", hint="set AWS_REGION, or region in the AWS profile"
        )
    try:
        credentials = session.get_credentials()
        if credentials is None:
            raise SettingsError(
                "no AWS credentials were found, and sink.iam_auth needs them",
                hint="run under a role that may rds-db:connect, or set AWS_PROFILE",
            )
        signer = botocore.signers.RequestSigner(
            ServiceId("RDS"),
            region,
            "rds-db",
            "v4",
            credentials,
            session.get_component("event_emitter"),
        )
        url: str = signer.generate_presigned_url(
            {
                "method": "GET",
                "url": f"https://{host}:{port}/?Action=connect&DBUser={quote(user, safe='')}",
                "body": {},
                "headers": {},
                "context": {},
            },
            operation_name="connect",
            region_name=region,
            expires_in=TOKEN_S,
            signing_name="rds-db",
        )
    except botocore.exceptions.BotoCoreError as error:
        raise TransientFault(
            f"no token for the database login ({type(error).__name__})", code="iam_token"
        ) from None
    return url.removeprefix("https://")
