"""Truncate an address to its network: /24 of IPv4, /48 of IPv6, the rest zeros.

The result is still an address. It names a network of 256 hosts or one site, which is enough for
statistics by provider or country. It is no secret: whoever knows an address knows its network.
"""

from __future__ import annotations

from sqs2pg.mask.canonical import ip, shown
from sqs2pg.mask.operator import Declaration, Operator, Properties

PROPERTIES = Properties(
    deterministic=True,
    reversible=False,
    joinable=False,
    format_preserving=True,
    # A field of kind `text` works too: the operator implies that its values are addresses.
    kinds=("ip", "text"),
)

IPV4_BYTES = 3
"""/24: the last octet goes."""
IPV6_BYTES = 6
"""/48: a site's prefix (RFC 6177); the subnet and the interface go."""


def truncate_ip() -> Operator:
    """Return the operator. Its mask raises PermanentFault `bad_ip`.

    An IPv4-mapped IPv6 address is truncated, and shown, as the IPv4 address it is.
    """
    return Operator("truncate_ip", PROPERTIES, _mask)


def _mask(value: str) -> str:
    address = ip(value)
    keep = IPV4_BYTES if len(address) == 4 else IPV6_BYTES
    return shown("ip", address[:keep].ljust(len(address), b"\0"))


DECLARATION = Declaration(
    "truncate_ip",
    PROPERTIES,
    lambda _kind, _domain, _roots: truncate_ip(),
    width=len("ffff:ffff:ffff::"),
    column_types={"ip": "inet", "text": "inet"},
    shows="shows the network, 256 addresses of IPv4, to anyone",
)
