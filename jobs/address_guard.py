"""The addresses to which we connect for a URL that a user or a provider chose: public ones, and those the operator allows.

The check is made on the address of the connection, never on the spelling of the URL: names, `127.1`, `0177.0.0.1` and
`2130706433` all resolve to an address. Resolve the host once, check every address, and connect to one that was checked:

    addresses = await resolve("example.com", 443)
    AddressGuard(settings.allowed_private_networks).check(addresses)
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
#: the only URLs that are called: http(s), a plain host, no user, and nothing that two parsers could read differently
URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?P<target>[/?][^#]*)?(?:#.*)?",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
#: resolves a host and a port to addresses, the preferred one first; raises OSError when there is none
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]


def _ranges(kinds: Mapping[str, str]) -> Sequence[tuple[Network, str]]:
    return [(ip_network(network), kind) for network, kind in kinds.items()]


#: IPv4 networks outside the public internet (IANA's special-purpose registry and one more), and their kind
_FORBIDDEN_4 = _ranges(
    {
        "0.0.0.0/8": "unspecified",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "carrier-grade NAT",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "cloud metadata",  # Azure's host agent has a public address
        "169.254.0.0/16": "link-local",  # 169.254.169.254 is the metadata service of most clouds
        "172.16.0.0/12": "private",
        "192.0.0.0/24": "reserved",
        "192.0.2.0/24": "documentation",
        "192.88.99.0/24": "6to4 relay",
        "192.168.0.0/16": "private",
        "198.18.0.0/15": "benchmarking",
        "198.51.100.0/24": "documentation",
        "203.0.113.0/24": "documentation",
        "224.0.0.0/4": "multicast",
        "255.255.255.255/32": "broadcast",
        "240.0.0.0/4": "reserved",
    }
)
#: the public part of IPv6 ...
_PUBLIC_6 = IPv6Network("2000::/3")
#: ... except for these networks
_FORBIDDEN_6 = _ranges(
    {
        "2001::/23": "reserved",  # includes Teredo and ORCHID
        "2001:db8::/32": "documentation",
        "2002::/16": "6to4",
        "3fff::/20": "documentation",
    }
)
#: networks outside of it that a message names
_NAMED_6 = _ranges(
    {
        "::/128": "unspecified",
        "::1/128": "loopback",
        "fc00::/7": "private",  # fd00:ec2::254 is a metadata service
        "fe80::/10": "link-local",
        "ff00::/8": "multicast",
    }
)
#: IPv6 networks that embed the IPv4 address to connect to; an IPv6-only host sees all of IPv4 through NAT64
_EMBEDDING = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


class NonPublicAddress(ValueError):
    """An address to which we must not connect; `kind` (loopback, private, ...) says why."""

    def __init__(self, address: Address, kind: str) -> None:
        super().__init__(
            f"{address} is a {kind} address; to allow it, add its network to DARKROOM_ALLOWED_PRIVATE_NETWORKS"
        )
        self.address = address
        self.kind = kind


@dataclass(frozen=True)
class AddressGuard:
    """Checks addresses: public ones pass, and those in `allowed_networks`, which the operator has allowed."""

    allowed_networks: Sequence[Network] = ()

    def is_allowed(self, address: Address) -> bool:
        """Whether the operator has allowed the address: then it may be private, and be called by plain http."""
        address = effective(address)
        return any(address in network for network in self.allowed_networks)

    def check(self, addresses: Iterable[Address]) -> None:
        """Raise NonPublicAddress unless we may connect to every one of these addresses."""
        for address in addresses:
            kind = forbidden_kind(address)
            if kind is not None and not self.is_allowed(address):
                raise NonPublicAddress(address, kind)


def forbidden_kind(address: Address) -> str | None:
    """The kind of an address that is not public (`loopback`, `private`, ...); None for a public one."""
    address = effective(address)
    if isinstance(address, IPv4Address):
        return _kind(address, _FORBIDDEN_4)
    if address in _PUBLIC_6:
        return _kind(address, _FORBIDDEN_6)
    return _kind(address, _NAMED_6) or "reserved"


def effective(address: Address) -> Address:
    """The IPv4 address that a mapped or NAT64 IPv6 address embeds; any other address unchanged."""
    if isinstance(address, IPv6Address) and any(address in network for network in _EMBEDDING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def host_of(url: str) -> str:
    """The host of a URL, in lower case; empty for anything that is not a URL."""
    match = URL.fullmatch(url)
    return match["host"].lower().rstrip(".") if match else ""


async def resolve(host: str, port: int) -> Sequence[Address]:
    """The addresses of a host name or a literal, by the system's resolver, without blocking the loop. Raises OSError."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(sockaddr[0]) for _, _, _, _, sockaddr in answers]


def _kind(address: Address, ranges: Iterable[tuple[Network, str]]) -> str | None:
    return next((kind for network, kind in ranges if address in network), None)
