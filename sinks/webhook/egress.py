"""Egress: which URLs and addresses a delivery may reach, decided at every dial (a guard against SSRF)."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import structlog
from aiohttp import AddrInfoType
from yarl import URL

from ...core.errors import HammerworkError, Misconfigured

log = structlog.get_logger(__name__)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

LONGEST_URL = 2048
URL_HINT = "https://host/path, on port 443 or from 1024 up"
ALLOW_HINT = "if this destination is yours, list its network in allow_networks"

PUBLIC_V6 = IPv6Network("2000::/3")
"""All the unicast addresses that IANA has given out for the internet; what lies outside is refused, and
with it ::1, mapped, translated (64:ff9b::/96), discard, segment routing, local and multicast addresses."""

DENIED: tuple[Network, ...] = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link local, and the metadata services of clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # IETF protocols
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
        "2001::/23",  # IETF protocols: Teredo, which carries an IPv4 address, ORCHID, benchmarks
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
)
"""The IANA special-purpose registries (2026). `ipaddress.is_global` is no substitute: Python 3.11 calls
64:ff9b::7f00:1, 2002:7f00:1::, ::127.0.0.1, 192.0.0.192 and ff02::1 global."""


class RefusedAddress(HammerworkError, OSError):
    """The address of a dial is not allowed. Its text is always the same: with differing texts the dialler
    would merge the refusals of a name's addresses into an error of another class."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "refused address")


class Egress:
    """The rules for one destination. `allow` lists networks that are exempt from the deny list.

    The check that counts is `socket_factory`: it sees every address that is dialled, whatever spelling, DNS
    answer or literal led there. `check_url` tells the operator early what can be told early.
    """

    def __init__(self, sink: str, *, allow: Iterable[Network] = (), allow_http: bool = False) -> None:
        self._sink = sink
        self._allow = tuple(allow)
        self._allow_http = allow_http

    def permits(self, address: str) -> bool:
        """Whether this numeric address may be dialled; what cannot be read may not."""
        try:
            found = _unmapped(ipaddress.ip_address(address.partition("%")[0]))
        except ValueError:
            return False
        if any(found in network for network in self._allow):
            return True
        if found.version == 6 and found not in PUBLIC_V6:
            return False
        return not any(found in network for network in DENIED)

    def socket_factory(self, info: AddrInfoType) -> socket.socket:
        """A socket for one dial, as `aiohttp.TCPConnector` asks for it; raises RefusedAddress."""
        family, kind, protocol, _, (address, *_) = info
        if not self.permits(str(address)):
            log.warning("address refused", sink=self._sink, address=str(address))
            raise RefusedAddress
        return socket.socket(family=family, type=kind, proto=protocol)

    def check_url(self, text: str) -> URL:
        """The URL, parsed by the parser that the dialler uses; raises Misconfigured.

        No message repeats more than the host: paths and queries of webhooks often hold a secret.
        """
        if not text.isprintable() or " " in text or "\\" in text or len(text) > LONGEST_URL:
            raise Misconfigured(
                f"a webhook url has at most {LONGEST_URL} printable characters and no spaces or backslashes"
            )
        try:
            url = URL(text)
        except ValueError:
            raise Misconfigured("the webhook url cannot be read", hint=URL_HINT) from None
        self._check_form(url)
        self._check_port(url)
        self._check_host(url.raw_host or "")
        return url

    def _check_form(self, url: URL) -> None:
        if url.scheme == "http" and not self._allow_http:
            raise Misconfigured(
                "the webhook url is http://, which anybody on the way can read",
                hint="write https://, or set allow_http = true",
            )
        if url.scheme not in ("http", "https") or not url.raw_host:
            raise Misconfigured("the webhook url is neither https:// nor http://", hint=URL_HINT)
        if url.raw_user is not None or url.raw_password is not None:
            raise Misconfigured(
                "the webhook url holds a user or password", hint="give an authorization header instead"
            )
        if url.raw_fragment:
            raise Misconfigured("the webhook url has a fragment, which is never sent", hint=URL_HINT)

    def _check_port(self, url: URL) -> None:
        if url.port is None or (url.port < 1024 and url.port != {"https": 443, "http": 80}[url.scheme]):
            raise Misconfigured(f"webhooks are not sent to port {url.port}", hint=URL_HINT)

    def _check_host(self, host: str) -> None:
        literal = _literal(host.rstrip("."))
        if literal is None:
            return
        if ":" not in host and host != str(literal):
            raise Misconfigured(f"the host {host!r} is an address in disguise", hint=f"write {literal}")
        if not self.permits(str(literal)):
            raise Misconfigured(f"webhooks are not sent to {literal}", hint=ALLOW_HINT)


def _unmapped(address: Address) -> Address:
    """The IPv4 address inside ::ffff:0:0/96, which the kernel dials as IPv4."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _literal(host: str) -> Address | None:
    """The address that a host is in any spelling that resolvers take (127.1, 0x7f000001, 2130706433, 0177.1);
    None for a name."""
    if ":" in host:
        try:
            return ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            raise Misconfigured("the host of the webhook url cannot be read", hint=URL_HINT) from None
    try:
        return IPv4Address(socket.inet_aton(host))
    except (OSError, ValueError):
        return None
