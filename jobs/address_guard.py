"""Which addresses a URL that somebody else chose may lead to: public ones, and those the operator has allowed.

Judged is the address that a connection is about to be opened to, never the spelling of a URL: names, `127.1`,
`0177.0.0.1` and `2130706433` all end as an address. Resolve once, judge every answer, connect to one that was judged:

    addresses = await resolved("example.com", 443)
    Guard(settings.allowed_private_networks).check(addresses)
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
#: the only URLs that are spoken to: http(s), a plain host, no user, nothing that two readers could read in two ways
URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?(?P<target>[/?][^#]*)?(?:#.*)?",
    re.IGNORECASE | re.DOTALL | re.ASCII,
)
#: turns a host and a port into its addresses, the preferred one first; raises OSError when there is none
Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]


def _ranges(kinds: Mapping[str, str]) -> Sequence[tuple[Network, str]]:
    return [(ip_network(network), kind) for network, kind in kinds.items()]


#: IPv4 that is not the public internet (IANA's special-purpose registry and one more), and what it is
_FORBIDDEN_4 = _ranges(
    {
        "0.0.0.0/8": "unspecified",
        "10.0.0.0/8": "private",
        "100.64.0.0/10": "carrier-grade NAT",
        "127.0.0.0/8": "loopback",
        "168.63.129.16/32": "cloud metadata",  # Azure's host agent hides behind a public number
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
#: IPv6 is forbidden outside of this ...
_PUBLIC_6 = IPv6Network("2000::/3")
#: ... and in these parts of it
_FORBIDDEN_6 = _ranges(
    {
        "2001::/23": "reserved",  # Teredo and ORCHID among them
        "2001:db8::/32": "documentation",
        "2002::/16": "6to4",
        "3fff::/20": "documentation",
    }
)
#: what lies outside and deserves its name in a message
_NAMED_6 = _ranges(
    {
        "::/128": "unspecified",
        "::1/128": "loopback",
        "fc00::/7": "private",  # fd00:ec2::254 is a metadata service
        "fe80::/10": "link-local",
        "ff00::/8": "multicast",
    }
)
#: behind these stands the IPv4 address that is reached in the end; NAT64 is all that an IPv6-only host sees of IPv4
_EMBEDDING = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


class Forbidden(ValueError):
    """An address that must not be connected to. `address` and `kind` (loopback, private, ...) say why."""

    def __init__(self, address: Address, kind: str) -> None:
        super().__init__(f"{address} is a {kind} address; DARKROOM_ALLOWED_PRIVATE_NETWORKS can open its network")
        self.address = address
        self.kind = kind


@dataclass(frozen=True)
class Guard:
    """Judges addresses: public ones pass, and those in `allowed_networks`, which the operator has opened."""

    allowed_networks: Sequence[Network] = ()

    def opens(self, address: Address) -> bool:
        """Whether the operator has opened the address: then it may be private, and spoken to by plain http."""
        address = effective(address)
        return any(address in network for network in self.allowed_networks)

    def check(self, addresses: Iterable[Address]) -> None:
        """Pass if each address may be connected to; one bad answer among good ones condemns all. Raises Forbidden."""
        for address in addresses:
            kind = kind_of_forbidden(address)
            if kind is not None and not self.opens(address):
                raise Forbidden(address, kind)


def kind_of_forbidden(address: Address) -> str | None:
    """What makes the address no public one (`loopback`, `private`, ...), or None for a public one."""
    address = effective(address)
    if isinstance(address, IPv4Address):
        return _kind(address, _FORBIDDEN_4)
    if address in _PUBLIC_6:
        return _kind(address, _FORBIDDEN_6)
    return _kind(address, _NAMED_6) or "reserved"


def effective(address: Address) -> Address:
    """The IPv4 address that a mapped or NAT64 IPv6 address stands for; any other address itself."""
    if isinstance(address, IPv6Address) and any(address in network for network in _EMBEDDING):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def host_of(url: str) -> str:
    """The host that a URL names, in one spelling; empty where it is no URL."""
    match = URL.fullmatch(url)
    return match["host"].lower().rstrip(".") if match else ""


async def resolved(host: str, port: int) -> Sequence[Address]:
    """Ask the system's resolver on the running loop for the addresses of a name or a literal. Raises OSError."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [ip_address(sockaddr[0]) for _, _, _, _, sockaddr in answers]


def _kind(address: Address, ranges: Iterable[tuple[Network, str]]) -> str | None:
    return next((kind for network, kind in ranges if address in network), None)
