"""Which hosts are this machine: the development key is for no other one. No I/O."""

from __future__ import annotations

import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, judged by its form: loopback, `localhost`, a Unix socket.

    Names are not resolved: one that happens to resolve to loopback counts as another machine.
    """
    if not host or host.startswith(("/", "@")) or host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_loopback
