"""Only public addresses pass, however they are written, and those that the operator allows."""

import asyncio
import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.address_guard import URL, Address, AddressGuard, NonPublicAddress, effective, forbidden_kind, host_of, resolve

FORBIDDEN = [
    ("0.0.0.0", "unspecified"),
    ("10.1.2.3", "private"),
    ("100.64.0.1", "carrier-grade NAT"),
    ("100.100.100.200", "carrier-grade NAT"),
    ("127.0.0.1", "loopback"),
    ("127.255.255.254", "loopback"),
    ("168.63.129.16", "cloud metadata"),
    ("169.254.169.254", "link-local"),
    ("172.16.0.1", "private"),
    ("172.31.255.255", "private"),
    ("192.0.0.192", "reserved"),
    ("192.0.2.1", "documentation"),
    ("192.88.99.1", "6to4 relay"),
    ("192.168.1.1", "private"),
    ("198.18.0.1", "benchmarking"),
    ("198.51.100.7", "documentation"),
    ("203.0.113.9", "documentation"),
    ("224.0.0.1", "multicast"),
    ("240.0.0.1", "reserved"),
    ("255.255.255.255", "broadcast"),
    ("::", "unspecified"),
    ("::1", "loopback"),
    ("::127.0.0.1", "reserved"),  # IPv4-compatible
    ("::ffff:127.0.0.1", "loopback"),  # IPv4-mapped
    ("::ffff:10.0.0.1", "private"),
    ("::ffff:0:127.0.0.1", "reserved"),  # IPv4-translated
    ("64:ff9b::a9fe:a9fe", "link-local"),  # NAT64 of 169.254.169.254
    ("64:ff9b:1::1", "reserved"),  # local NAT64
    ("100::1", "reserved"),
    ("2001::1", "reserved"),  # Teredo
    ("2001:10::1", "reserved"),
    ("2001:db8::1", "documentation"),
    ("2002:7f00:1::", "6to4"),
    ("3fff::1", "documentation"),
    ("5f00::1", "reserved"),
    ("fc00::1", "private"),
    ("fd00:ec2::254", "private"),
    ("fe80::1", "link-local"),
    ("fe80::1%eth0", "link-local"),
    ("fec0::1", "reserved"),  # site-local
    ("ff02::1", "multicast"),
]

PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700:4700::1111",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize(("address", "kind"), FORBIDDEN)
def test_an_address_that_is_not_public_is_forbidden_by_its_kind(address: str, kind: str) -> None:
    with pytest.raises(NonPublicAddress) as raised:
        AddressGuard().check([ip_address(address)])
    assert raised.value.kind == kind
    assert raised.value.address == ip_address(address)
    assert "DARKROOM_ALLOWED_PRIVATE_NETWORKS" in str(raised.value)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_passes_but_is_not_allowed_plain_http(address: str) -> None:
    AddressGuard().check([ip_address(address)])
    assert forbidden_kind(ip_address(address)) is None
    assert not AddressGuard().is_allowed(ip_address(address))


@pytest.mark.parametrize("order", [1, -1])
def test_one_forbidden_address_of_a_host_forbids_it(order: int) -> None:
    with pytest.raises(NonPublicAddress, match=r"10\.0\.0\.1"):
        AddressGuard().check([ip_address("8.8.8.8"), ip_address("10.0.0.1")][::order])


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203"])
def test_an_allowed_network_allows_every_form_of_its_addresses(address: str) -> None:
    guard = AddressGuard([ip_network("10.1.0.0/16"), ip_network("fd00::/8")])
    guard.check([ip_address(address)])
    assert guard.is_allowed(ip_address(address))
    assert guard.is_allowed(ip_address("fd00::7"))


def test_an_allowed_network_allows_no_other_address() -> None:
    with pytest.raises(NonPublicAddress):
        AddressGuard([ip_network("10.1.0.0/16")]).check([ip_address("10.2.0.1")])


def test_only_mapped_and_nat64_addresses_embed_another() -> None:
    assert effective(ip_address("::ffff:1.2.3.4")) == ip_address("1.2.3.4")
    assert effective(ip_address("64:ff9b::1.2.3.4")) == ip_address("1.2.3.4")
    assert effective(ip_address("2606::1")) == ip_address("2606::1")


@pytest.mark.parametrize(
    "spelling", ["127.0.0.1", "127.1", "2130706433", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "localhost"]
)
def test_every_spelling_of_loopback_resolves_to_it(spelling: str) -> None:
    assert {forbidden_kind(address) for address in asyncio.run(resolve(spelling, 80))} == {"loopback"}


def test_a_literal_ipv6_address_resolves_to_itself() -> None:
    assert list(asyncio.run(resolve("::ffff:127.0.0.1", 80))) == [ip_address("::ffff:127.0.0.1")]


# Every spelling


def _number(value: int, base: int) -> str:
    return {8: f"0{value:o}", 10: str(value), 16: f"0x{value:x}"}[base]


def _spelled(number: int, bases: Sequence[int], parts: int) -> str:
    """An IPv4 address in so many parts, as `inet_aton` reads it: the last one holds the rest."""
    octets = number.to_bytes(4, "big")
    last = int.from_bytes(octets[parts - 1 :], "big")
    return ".".join(map(_number, [*octets[: parts - 1], last], bases))


_BASES = st.lists(st.sampled_from([8, 10, 16]), min_size=4, max_size=4)
_PRIVATE = st.sampled_from(
    [
        int(IPv4Address(text))
        for text in ("127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0")
    ]
)


def addresses(host: str) -> Sequence[Address]:
    """What the system's resolver makes of a numeric host."""
    return [ip_address(found[4][0]) for found in socket.getaddrinfo(host, 80, type=socket.SOCK_STREAM)]


@given(_PRIVATE, _BASES, st.integers(1, 4))
def test_no_spelling_of_a_private_ipv4_address_passes(number: int, bases: list[int], parts: int) -> None:
    host = _spelled(number, bases, parts)
    assert host_of(f"https://{host}/x") == host
    with pytest.raises(NonPublicAddress):
        AddressGuard().check(addresses(host))


@given(_PRIVATE, st.sampled_from(["::ffff:0:0", "64:ff9b::"]), st.booleans())
def test_no_ipv6_address_that_embeds_a_private_one_passes(number: int, prefix: str, dotted: bool) -> None:
    address = IPv6Address(int(IPv6Address(prefix)) | number)
    text = f"{prefix.removesuffix('0:0')}{IPv4Address(number)}" if dotted else str(address)
    with pytest.raises(NonPublicAddress):
        AddressGuard().check(addresses(text))


@given(st.ip_addresses())
def test_an_address_that_passes_is_global_to_the_standard_library(address: Address) -> None:
    if forbidden_kind(address) is None:
        assert effective(address).is_global


@given(st.text(max_size=60) | st.from_regex(r"https?://[\x00-\x7f]{0,40}", fullmatch=True))
def test_a_url_has_one_reading_or_none(text: str) -> None:
    host = host_of(text)
    assert re.fullmatch(r"|\[[0-9a-f:.]+\]?|[a-z0-9._-]*", host)
    if URL.fullmatch(text):
        assert "@" not in text.split("//", 1)[1].split("/")[0].split("?")[0].split("#")[0]
