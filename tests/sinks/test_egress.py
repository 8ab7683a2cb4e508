"""Egress: every address of the deny list in both families, every spelling of an address, every odd URL."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from hammerwork.core.errors import Misconfigured
from hammerwork.core.job import Retry
from hammerwork.sinks.webhook.egress import Egress, RefusedAddress

from .delivering import Settings, attempt, connections_of, deliver, sink
from .hostile_server import HostileServer

# The first and the last address of what the IANA registries call special, and what embeds one.
DENIED_NETWORKS = [
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
    *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
    *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("::/128", "::1/128", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001:db8::/32"),
    *("3fff::/20", "2002::/16", "2001::/32", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8"),
]
DENIED = [
    *(str(network[index]) for network in map(ipaddress.ip_network, DENIED_NETWORKS) for index in (0, -1)),
    *(f"::ffff:{address}" for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0")),
    *("169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1", "192.0.0.192", "ff02::1"),
    *("255.255.255.255", "fe80::1%lo", "fe80::1%1", "fd00:ec2::254", "::ffff:0:127.0.0.1", "2001:10::1"),
]
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "100.128.0.1", "2a00::1"]


def dial(egress: Egress, address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    target = (address, 443, 0, 0) if ":" in address else (address, 443)
    egress.socket_factory((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", target)).close()


class Answers(AbstractResolver):
    """A DNS server's answer, as hostile as it may be; every question gets the next list of addresses."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.left = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = self.left.pop(0) if len(self.left) > 1 else self.left[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


CLOSED: Settings = {"allow_networks": []}


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", DENIED)
def test_a_special_address_is_never_dialled(address: str) -> None:
    with pytest.raises(RefusedAddress):
        dial(Egress("hooks"), address)


@pytest.mark.parametrize("address", PUBLIC)
def test_a_public_address_is_dialled(address: str) -> None:
    dial(Egress("hooks"), address)


@pytest.mark.parametrize("address", ["", "localhost", "127.1", "0x7f000001", "1.1.1.1.1"])
def test_what_cannot_be_read_is_not_dialled(address: str) -> None:
    assert not Egress("hooks").permits(address)


def test_allowed_networks_are_exempt_and_nothing_beside_them() -> None:
    allow = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/64")]
    egress = Egress("hooks", allow=allow)
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"):
        dial(egress, address)
    for address in ("10.2.0.1", "::ffff:10.2.0.1", "fd00:0:0:1::1", "127.0.0.1"):
        with pytest.raises(RefusedAddress):
            dial(egress, address)


# --- at the socket -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST"])
async def test_a_name_of_this_host_reaches_nothing(server: HostileServer, host: str) -> None:
    report = await deliver(server.url("/", host), CLOSED)
    assert report.error == "refused_address"
    assert report.outcome == Retry("refused_address")
    assert server.connections == 0


@pytest.mark.parametrize(
    "addresses", [["127.0.0.1"], ["::1", "127.0.0.1"], ["::ffff:127.0.0.1"], ["10.0.0.1"], ["fe80::1%1"]]
)
async def test_a_hostile_dns_answer_reaches_nothing(server: HostileServer, addresses: list[str]) -> None:
    report = await deliver(server.url("/", "hooks.example.com"), CLOSED, resolver=Answers(addresses))
    assert report.error == "refused_address"
    assert server.connections == 0


async def test_an_answer_that_changes_after_the_first_question_is_checked_again(
    server: HostileServer,
) -> None:
    server.answers("/", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    answers = Answers(["127.0.0.1"], ["127.0.0.2"])
    settings = {"allow_networks": ["127.0.0.1/32"]}
    async with sink(server.url("/", "hooks.example.com"), settings, resolver=answers) as opened:
        assert (await opened.deliver(attempt())).error is None
        connections_of(opened).clear_dns_cache()  # as if the answer's time to live had passed
        assert (await opened.deliver(attempt())).error == "refused_address"
    assert server.connections == 1


async def test_of_a_mixed_answer_only_the_good_address_is_dialled(server: HostileServer) -> None:
    async with HostileServer().running() as other:
        mixed = Answers(["127.0.0.2", "::1", "127.0.0.1"])
        report = await deliver(
            server.url("/", "h.example"), {"allow_networks": ["127.0.0.1/32"]}, resolver=mixed
        )
        assert report.error is None
        assert (server.connections, other.connections) == (1, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::ffff:127.0.0.1]", "localhost"])
async def test_allowed_networks_are_reached(server: HostileServer, host: str) -> None:
    report = await deliver(server.url("/", host))
    assert report.error is None
    assert server.connections == 1


async def test_a_proxy_of_the_environment_is_not_asked(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with HostileServer().running() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        assert (await deliver(server.url())).error is None
        assert (await deliver(server.url("/", "localhost"), CLOSED)).error == "refused_address"
        assert (server.connections, proxy.connections) == (1, 0)


# --- URLs ----------------------------------------------------------------------------------------

LITERALS = [
    *("127.0.0.1", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::1]", "[::]", "0.0.0.0", "10.0.0.1"),
    *("0x7f000001", "2130706433", "127.1", "0177.0.0.1", "017700000001", "0x7f.1", "127.0.0.1.", "0"),
    *("１２７.0.0.1", "127。0。0。1", "[fe80::1%25lo]", "[64:ff9b::7f00:1]", "169.254.169.254"),
    *("0x8.8.8.8", "134744072"),  # public, but in disguise
]


@pytest.mark.parametrize("host", LITERALS)
async def test_no_spelling_of_an_address_gets_through(server: HostileServer, host: str) -> None:
    with pytest.raises(Misconfigured):
        await deliver(server.url("/", host), CLOSED)
    assert server.connections == 0


ODD_URLS = [
    *("", "hooks", "/hooks", "//h.example/", "https://", "https:///x", "https:h.example", "mailto:a@b"),
    *("ftp://h.example/", "file:///etc/passwd", "unix:///run/x", "gopher://h.example/", "javascript:0"),
    *("https://user@h.example/", "https://user:hunter2@h.example/", "https://:hunter2@h.example/"),
    *("https://h.example/#hunter2", "https://h.example\\@127.0.0.1/", "https://h.example/a b"),
    *(
        "https://h.example/\r\nHost: x",
        "https://h.example/\thunter2",
        "https://h.ex\u200bample/",
        " https://h/",
    ),
    *("https://h.example:22/", "https://h.example:80/", "https://h.example:0/", "https://h.example:65536/"),
    *("https://h.example:1023/", "http://h.example:443/", "https://[::1", "https://[1:2:3]/"),
    "https://h.example/" + "hunter2" * 300,
]


@pytest.mark.parametrize("url", ODD_URLS)
def test_an_odd_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        Egress("hooks", allow_http=True).check_url(url)
    assert "hunter2" not in f"{refused.value} {refused.value.hint}"


def test_http_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(Misconfigured) as refused:
        Egress("hooks").check_url("http://h.example/")
    assert "allow_http" in refused.value.hint
    Egress("hooks", allow_http=True).check_url("http://h.example/")


@pytest.mark.parametrize(
    "url",
    ["https://h.example", "https://h.example:1024/x?y=z", "https://1.1.1.1/", "https://[2606:4700::1]:8443/"],
)
def test_a_plain_url_is_taken(url: str) -> None:
    assert Egress("hooks").check_url(url).scheme == "https"


def test_an_international_name_is_taken_in_its_ascii_form() -> None:
    assert Egress("hooks").check_url("https://bücher.example/").raw_host == "xn--bcher-kva.example"
