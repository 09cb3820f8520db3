"""A daemon that speaks TLS: what connects to it, and what is told of a certificate that is not trusted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trustme

import llm_runtime
from llm_protocol.failures import FailureKind
from llm_runtime import LLMClientError, aio
from llm_runtime.config import ServerTls
from support.server import OpenServer, open_server, saying


class Place:
    """An authority, and where its files are."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.ca_file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        self._folder = folder

    def certificate(self, name: str = "127.0.0.1") -> ServerTls:
        issued = self.ca.issue_cert(name)
        (self._folder / "cert.pem").write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(self._folder / "key.pem"))
        return ServerTls(certificate=str(self._folder / "cert.pem"), key=str(self._folder / "key.pem"))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@asynccontextmanager
async def daemon(tls: ServerTls | None) -> AsyncIterator[OpenServer]:
    async with open_server(saying("Hel", "lo"), tls=tls) as server:
        yield server


async def test_whole_answers_and_streams_go_through_tls(place: Place) -> None:
    async with (
        daemon(place.certificate()) as server,
        llm_runtime.connect(server.address.url, ca_file=place.ca_file) as rt,
    ):
        assert server.address.url.startswith("https://")
        assert (await rt.chat("Hi.", model="m")).content == "Hello"
        async with rt.stream("Hi.", model="m") as stream:
            assert "".join([piece async for piece in stream.text()]) == "Hello"
        assert await rt.is_ready()


async def test_the_asyncio_host_trusts_the_same_file(place: Place) -> None:
    async def main(url: str) -> str:
        async with aio.connect(url, ca_file=place.ca_file) as rt:
            return (await rt.chat("Hi.", model="m")).content

    async with daemon(place.certificate()) as server:
        found = await trio.to_thread.run_sync(lambda: asyncio.run(main(server.address.url)))
    assert found == "Hello"


async def refused(url: str, ca_file: str | None = None) -> LLMClientError:
    """The error of a connection that must not come about."""
    with pytest.raises(LLMClientError) as caught, trio.fail_after(10):
        async with llm_runtime.connect(url, ca_file=ca_file):
            pytest.fail("it connected")
    return caught.value


def other_authority(place: Place) -> str:
    trustme.CA().cert_pem.write_to_path(f"{place.ca_file}.other")
    return f"{place.ca_file}.other"


@pytest.mark.parametrize(
    ("tls", "trusted", "says"),
    [
        (Place.certificate, lambda _: None, "certificate refused: unable to get local issuer certificate"),
        (Place.certificate, other_authority, "certificate refused: unable to get local issuer certificate"),
        (
            lambda place: place.certificate("daemon.example"),
            lambda place: place.ca_file,
            "certificate refused: IP address mismatch, certificate is not valid for '127.0.0.1'.",
        ),
    ],
    ids=["public authorities", "another authority", "another name"],
)
async def test_a_certificate_that_is_not_trusted_is_one_clear_line(
    place: Place, tls: Callable[[Place], ServerTls], trusted: Callable[[Place], str | None], says: str
) -> None:
    async with daemon(tls(place)) as server:
        error = await refused(server.address.url, trusted(place))
        assert error.failure.kind is FailureKind.TLS
        assert str(error) == f"{server.address.url}: {says}"
        assert server.engine.requests == []


async def test_the_wrong_scheme_is_one_clear_line(place: Place) -> None:
    async with daemon(place.certificate()) as server:
        url = server.address.url.replace("https", "http")
        said = "This port speaks TLS: write https:// (or wss://)."
        assert str(await refused(url)) == f"{url} responded with status 400. {said}"
    async with daemon(None) as server:
        error = await refused(server.address.url.replace("http", "https"), place.ca_file)
        assert error.failure.kind is FailureKind.TLS
        assert str(error).startswith(server.address.url.replace("http", "https"))


async def test_a_file_that_holds_no_authority_is_one_clear_line(place: Place, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    async with daemon(place.certificate()) as server:
        for name in ("empty.pem", "none.pem"):
            error = await refused(server.address.url, str(tmp_path / name))
            assert name in str(error)
            assert "\n" not in str(error)
