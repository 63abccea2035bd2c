"""The AWS environment as botocore reads it: region, endpoint, retries, roots, credentials.

Place in the flow: once at start, and again in a thread when credentials are renewed. botocore reads
it, so everything that boto3 understands works here: environment, profiles, SSO, roles, IRSA,
container and instance credentials, FIPS and dual-stack endpoints. Loading botocore takes a third of
a start, so it is left out where a few variables say everything: an emulator's.
Must never be used for a request of the hot path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from sqs2pg.errors import SettingsError
from sqs2pg.sqs.credentials import CredentialKeeper, Provided, check_keys, provider_of
from sqs2pg.sqs.endpoint import Endpoint, Proxy, find_proxy, parse_endpoint
from sqs2pg.sqs.retries import RetrySettings

_ATTEMPTS_MAX = {"legacy": 5, "standard": 3}
"""botocore's numbers, used if AWS_MAX_ATTEMPTS is not set."""

_PLAIN_VARIABLES = frozenset(
    {
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_SQS"),
        *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_EC2_METADATA_DISABLED"),
        "AWS_CA_BUNDLE",  # http needs none
    }
)
"""What `_read_variables` understands. Any other AWS_ variable may change what botocore would do."""
_FILES = {
    "AWS_CONFIG_FILE": "~/.aws/config",
    "AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials",
}
_PLAIN_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_PLAIN_URL = re.compile(r"http://[a-z0-9]+([.-][a-z0-9]+)*(:[0-9]{1,5})?/?")


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
    return _read_variables(os.environ, region, endpoint_url) or _ask_botocore(region, endpoint_url)


def _read_variables(
    environ: Mapping[str, str], region: str | None, endpoint_url: str | None
) -> AwsEnvironment | None:
    """Return what the variables of an emulator say; None if only botocore can tell.

    They give keys, a region and an http endpoint, and nothing else is configured. Raises
    SettingsError for keys that do not fit into a header.
    """
    get = environ.get
    region = region or get("AWS_REGION") or get("AWS_DEFAULT_REGION") or ""
    url = endpoint_url or get("AWS_ENDPOINT_URL_SQS") or get("AWS_ENDPOINT_URL") or ""
    access_key, secret_key = get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY")
    if (
        not (access_key and secret_key and _PLAIN_REGION.fullmatch(region))
        or not _PLAIN_URL.fullmatch(url)
        or any(name.startswith("AWS_") and name not in _PLAIN_VARIABLES for name in environ)
        or any(_exists(get(name, default)) for name, default in _FILES.items())
    ):
        return None
    keys = check_keys(access_key, secret_key, get("AWS_SESSION_TOKEN"))
    endpoint = parse_endpoint(url)
    return AwsEnvironment(
        region=region,
        endpoint=endpoint,
        credentials=CredentialKeeper(lambda: (keys, None), _resolve_anew),
        retries=RetrySettings("legacy", _ATTEMPTS_MAX["legacy"]),
        proxy=find_proxy(endpoint),
    )


def _exists(file: str) -> bool:
    return file != os.devnull and Path(file).expanduser().exists()


def _ask_botocore(region: str | None, endpoint_url: str | None) -> AwsEnvironment:
    import botocore.exceptions
    import botocore.session

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
    import botocore.exceptions

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
    import botocore.exceptions
    import botocore.session

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
    import botocore.httpsession

    bundle = session.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    return str(bundle or botocore.httpsession.where())
