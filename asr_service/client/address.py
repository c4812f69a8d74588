"""Addresses of a server: what gRPC would take to mean another place is none."""

from __future__ import annotations

import re

# Schemes that gRPC resolves itself: what follows them need not be a host and a port.
_RESOLVED = re.compile(r"(dns|unix|unix-abstract|ipv4|ipv6|vsock|xds):.+")
_HOST = r"(\[[^\]\s]+\]|[^:/\s\[\]\ud800-\udfff]+)"
_HOST_PORT = re.compile(_HOST + ":([0-9]{1,5})")


def address_problem(address: str, *, needs_port: bool = True) -> str:
    """What an address must be and is not, "" where it is one.

    Of no port gRPC makes 443, of a larger one than there is its last 16 bits.
    """
    found = _HOST_PORT.fullmatch(address)
    if (found is not None and 1 <= int(found[2]) <= 65_535) or _RESOLVED.fullmatch(address):
        return ""
    if not needs_port and re.fullmatch(_HOST, address):
        return ""
    return "must be HOST:PORT with a port from 1 to 65535"
