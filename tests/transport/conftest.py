"""What holds of the transport holds in HTTP/1.1 and in HTTP/2: the tests of `BOTH` run with each."""

from __future__ import annotations

import pytest

from llm_actors.transport import Transport
from support.peer import Peer

BOTH = ("test_exchange", "test_faults", "test_tls", "test_proxies", "test_real_proxies")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__.rpartition(".")[2] in BOTH:
        metafunc.parametrize("spoken", ["1.1", "2"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is about HTTP/1.1 alone runs once."""
    items[:] = [each for each in items if not (each.get_closest_marker("http1") and is_http2(each))]


def is_http2(item: pytest.Item) -> bool:
    """Whether the test would run over HTTP/2."""
    call = getattr(item, "callspec", None)
    return call is not None and call.params.get("spoken") == "2"


@pytest.fixture(autouse=True)
def spoken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every transport and every peer of the test speaks this."""
    version: str = getattr(request, "param", "1.1")
    if version == "2":
        for made in (Transport, Peer):
            defaults = made.__init__.__kwdefaults__
            assert defaults is not None
            monkeypatch.setitem(defaults, "http2", True)
    return version
