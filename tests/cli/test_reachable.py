"""The address that `serve` suggests to try."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from llm_runtime.cli.serve import reachable
from llm_runtime.config import ServerTls


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://[::]:8080", "http://[::1]:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://daemon.example:8080", "http://daemon.example:8080"),
        ("unix:/run/llm-runtime.sock", "unix:/run/llm-runtime.sock"),
    ],
)
def test_all_interfaces_are_reached_by_loopback(url: str, expected: str) -> None:
    assert reachable(url, None) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("127.0.0.1", "daemon.example"), "https://127.0.0.1:8443"),
        (("daemon.example", "localhost"), "https://localhost:8443"),
        (("*.example", "daemon.example"), "https://daemon.example:8443"),
        (("*.example",), "https://127.0.0.1:8443"),
        (("::1",), "https://[::1]:8443"),
    ],
)
def test_with_tls_by_a_name_of_the_certificate(tmp_path: Path, names: tuple[str, ...], expected: str) -> None:
    issued = trustme.CA().issue_cert(*names)
    file = tmp_path / "cert.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    assert reachable("https://0.0.0.0:8443", ServerTls(certificate=str(file))) == expected
