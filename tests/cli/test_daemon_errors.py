"""What commands say that a daemon refuses, or that cannot reach one: one line, in the daemon's words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from llm_runtime.fake import FakeProvider
from support import commands
from support.peer import Peer, reply
from support.server import open_server
from support.upstream import JSON, whole

APP, METRICS = "k-app-0123456789", "k-metrics-0123456789"
KEYS = (
    '[keys.app]\nsecret = "env:APP"\nmodels = ["p/m"]\n[keys.prometheus]\nsecret = "env:METRICS"\nmetrics_only = true\n'
)
WRONG = " (the key for a daemon is taken from LLM_RUNTIME_KEY)"


@asynccontextmanager
async def daemon(folder: Path, more: str = "") -> AsyncIterator[str]:
    """The address of a daemon with one model, and this in its configuration."""
    async with Peer(reply(whole(), headers=JSON)) as peer:
        file = folder / "c.toml"
        file.write_text(
            f'[server]\nport = 0\n{more}[providers.p]\nkind = "openai_compatible"\n'
            f'base_url = "{peer.url}/v1"\nmodels = ["m"]\n'
        )
        arguments = ("serve", "--config", str(file))
        async with commands.running(*arguments, environ={"APP": APP, "METRICS": METRICS}, seconds=60) as process:
            yield (await commands.line(process.stdout)).removeprefix("ready ")
            process.terminate()
            await process.wait()


async def test_a_refusal_is_one_line_in_the_daemons_words(tmp_path: Path) -> None:
    async with daemon(tmp_path, KEYS) as url:
        ask = ("ask", "--url", url, "hi")
        wrong = await commands.run(*ask, LLM_RUNTIME_KEY="k-none-0123456789")
        metrics = await commands.run(*ask, LLM_RUNTIME_KEY=METRICS)
        model = await commands.run(*ask, "-m", "p/nope", LLM_RUNTIME_KEY=APP)
        listed = await commands.run("models", "--url", url)
        piped = await commands.run("chat", "--url", url, stdin=b"one\ntwo\n")
    for done in (wrong, metrics, model, listed):
        assert (done.code, done.out, done.err.count("\n")) == (1, "", 1), done
    assert wrong.err.endswith(f"{WRONG}\n")
    assert listed.err.endswith(f"{WRONG}\n")
    assert metrics.err == "llm-runtime: This key is for /metrics only.\n"
    assert "p/nope" in model.err
    assert "daemon/" not in wrong.err + metrics.err + model.err
    assert (piped.code, piped.err.count("\n")) == (1, 2), "one line for each answer that failed"


async def test_a_certificate_is_trusted_if_its_authority_is_named(tmp_path: Path) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    ca.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    trusted = str(tmp_path / "ca.pem")
    async with daemon(tmp_path, '[server.tls]\ncertificate = "cert.pem"\n') as url:
        assert url.startswith("https://")
        refused = await commands.run("ask", "--url", url, "hi")
        listed = await commands.run("models", "--url", url)
        asked = await commands.run("ask", "--url", url, "--ca-file", trusted, "hi")
        models = await commands.run("models", "--url", url, LLM_RUNTIME_CA_FILE=trusted)
        reloaded = await commands.run("reload", "--url", url, "--ca-file", trusted)
        plain = url.replace("https", "http")
        wrong_scheme = [await commands.run(*each, "--url", plain) for each in (("ask", "hi"), ("top", "--once"))]
    for done in (refused, listed):
        assert done.code == 1
        assert done.err == (
            f"llm-runtime: {url}: certificate refused: unable to get local issuer certificate"
            "; --ca-file or LLM_RUNTIME_CA_FILE names the certificates to trust\n"
        )
    assert (asked.code, asked.err, asked.out) == (0, "", "Hello there\n")
    assert (models.code, models.out) == (0, "auto\np/m\n")
    assert (reloaded.code, reloaded.err) == (0, "")
    for done in wrong_scheme:
        assert (done.code, done.err.count("\n")) == (1, 1)
        assert "This port speaks TLS: write https://" in done.err


async def test_a_port_without_tls_is_told() -> None:
    async with open_server() as server:
        url = server.address.url.replace("http", "https")
        for arguments in (("ask", "hi"), ("models",)):
            done = await commands.run(*arguments, "--url", url)
            assert (done.code, done.err) == (
                1,
                f"llm-runtime: {url}: the port does not speak TLS: if the server has no TLS, "
                "write http:// in its address\n",
            )


@pytest.mark.parametrize("arguments", [("ask", "hi"), ("models",), ("top", "--once"), ("explain",)])
async def test_nobody_listens_there(arguments: tuple[str, ...]) -> None:
    done = await commands.run(*arguments, "--url", "http://127.0.0.1:9")
    assert (done.code, done.err) == (1, "llm-runtime: http://127.0.0.1:9: Connection refused\n")


async def test_another_server_is_no_daemon() -> None:
    async with FakeProvider() as fake:
        for arguments in (("models",), ("top", "--once"), ("spend",), ("reload",)):
            done = await commands.run(*arguments, "--url", fake.url)
            assert (done.code, done.err) == (1, f"llm-runtime: {fake.url} is not an llm-runtime daemon\n")


async def test_a_key_that_a_vendor_refuses_is_one_line(tmp_path: Path) -> None:
    body = json.dumps({"error": {"message": "bad key", "type": "x", "code": "invalid_api_key"}}).encode()
    async with Peer(reply(body, 401, JSON)) as peer, Peer(reply(whole(), headers=JSON)) as good:
        file = tmp_path / "c.toml"
        entry = '[providers.{0}]\nkind = "openai_compatible"\nbase_url = "{1}/v1"\nmodels = ["m"]\n'
        route = '[routes.r]\nstrategy = "fallback"\ncandidates = ["a/m", "b/m"]\n'
        file.write_text(entry.format("a", peer.url) + entry.format("b", good.url) + route)
        alone = await commands.run("ask", "--config", str(file), "-m", "a/m", "hi")
        saved = await commands.run("ask", "--config", str(file), "-m", "r", "hi")
    assert (alone.code, alone.err.count("\n")) == (1, 1)
    assert alone.err.startswith("llm-runtime: a/m: bad key")
    assert (saved.code, saved.out) == (0, "Hello there\n")
    assert "a/m: the vendor refused the configured key" in saved.err, "a fallback hides it from everything else"
