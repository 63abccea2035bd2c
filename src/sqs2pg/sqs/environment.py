"""The AWS environment as botocore reads it: region, endpoint, retries, roots, credentials.

Place in the flow: once at start, and again in a thread when credentials are renewed. botocore reads
it, so everything that boto3 understands works here: environment, profiles, SSO, roles, IRSA,
container and instance credentials, FIPS and dual-stack endpoints.
Must never be used for a request of the hot path.
"""

from __future__ import annotations

import os
from typing import Any

import botocore.exceptions
import botocore.httpsession
import botocore.session
import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.sqs.credentials import CredentialKeeper, Provided, provider_of
from sqs2pg.sqs.endpoint import Endpoint, Proxy, find_proxy, parse_endpoint
from sqs2pg.sqs.retries import RetrySettings

_ATTEMPTS_MAX = {"legacy": 5, "standard": 3}
"""botocore's numbers, used if AWS_MAX_ATTEMPTS is not set."""


class AwsEnvironment(msgspec.Struct):
    """What a client needs to know about AWS."""

    region: str
    endpoint: Endpoint
    credentials: CredentialKeeper
    retries: RetrySettings = RetrySettings()
    proxy: Proxy | None = None
    ca_bundle: str = ""
    """The PEM file of trusted roots; "" for an http endpoint."""


def read_environment(
    *, region: str | None = None, endpoint_url: str | None = None
) -> AwsEnvironment:
    """Return what botocore reads. Blocking: some credential providers do I/O.

    `region` and `endpoint_url` take precedence over the environment. Raises SettingsError if
    something is missing or wrong.
    """
    try:
        session = botocore.session.Session()
        # botocore does not read AWS_REGION, which the other SDKs and AWS's own containers use.
        region = region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
        client = session.create_client("sqs", region_name=region, endpoint_url=endpoint_url)
        endpoint = parse_endpoint(client.meta.endpoint_url)
        retries = _read_retries(client.meta.config.retries)
        ca_bundle = _find_ca_bundle(session) if endpoint.secure else ""
        credentials = CredentialKeeper(_find_credentials(session), _resolve_anew)
    except botocore.exceptions.NoRegionError:
        raise SettingsError(
            "no AWS region is configured", hint="set AWS_REGION, or region in the AWS profile"
        ) from None
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise SettingsError(
            f"the AWS environment is not usable ({type(error).__name__})",
            hint="try: aws sqs list-queues",
        ) from None
    return AwsEnvironment(
        region=client.meta.region_name,
        endpoint=endpoint,
        credentials=credentials,
        retries=retries,
        proxy=find_proxy(endpoint),
        ca_bundle=ca_bundle,
    )


def _find_credentials(session: Any) -> Any:
    credentials = session.get_credentials()
    if credentials is None:
        raise SettingsError(
            "no AWS credentials were found",
            hint="set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (any words will"
            " do for a local emulator), or run under a role",
        )
    return provider_of(credentials, botocore.exceptions.BotoCoreError)


def _resolve_anew() -> Provided:
    """Walk the whole chain again, without the caches of the first session."""
    try:
        provided: Provided = _find_credentials(botocore.session.Session())()
    except botocore.exceptions.BotoCoreError as error:
        raise SettingsError(f"no AWS credentials ({type(error).__name__})") from None
    return provided


def _read_retries(configured: dict[str, Any]) -> RetrySettings:
    mode = configured.get("mode") or "legacy"
    if mode == "adaptive":  # standard, plus a limit on the client's own rate, which is not built
        mode = "standard"
    attempts = configured.get("total_max_attempts") or _ATTEMPTS_MAX.get(mode, 3)
    return RetrySettings(mode, attempts)


def _find_ca_bundle(session: Any) -> str:
    """Return AWS_CA_BUNDLE or the profile's ca_bundle, else the roots that botocore trusts."""
    bundle = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    return str(bundle or botocore.httpsession.where())
