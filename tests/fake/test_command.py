"""``llm-runtime fake-provider`` as a person starts it."""

import signal
from contextlib import aclosing
from pathlib import Path

import pytest
import trustme

from llm_actors.transport import HttpRequest, TlsTrust, Transport, parse_url
from llm_protocol.requests import LLMProvider
from llm_runtime.fake import FakeProvider
from support import commands


async def fetch(url: str, path: str, body: bytes = b"", trust: TlsTrust | None = None) -> tuple[int, bytes]:
    origin, _ = parse_url(url)
    request = HttpRequest("POST" if body else "GET", origin, path, {}, body)
    async with aclosing(Transport(trust=trust)) as transport, transport.send(request) as response:
        whole = b""
        while part := await response.receive():
            whole += part
        return response.status, whole


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_ready_first_answers_by_its_script_and_ends_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    script = tmp_path / "script.toml"
    script.write_text('[[rule]]\nmodel = "m"\ntext = "Scripted."\n')
    async with commands.running("fake-provider", "--port", "0", "--script", str(script)) as process:
        ready, _, url = (await commands.line(process.stdout)).partition(" ")
        assert ready == "ready"
        status, body = await fetch(
            url, "/v1/chat/completions", b'{"model":"m","messages":[{"role":"user","content":"hi"}]}'
        )
        assert (status, b'"Scripted."' in body) == (200, True)
        assert b'"asked":1' in (await fetch(url, "/_fake/journal"))[1]
        process.send_signal(number)
        assert await process.wait() == 0
        err = await commands.rest(process.stderr)
        assert f"cerebras          {url}/cerebras/v1" in err
        assert f"the journal is at {url}/_fake/journal" in err


async def test_it_serves_https_with_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "cert.pem"))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with commands.running("fake-provider", "--port", "0", "--tls-cert", str(tmp_path / "cert.pem")) as process:
        url = (await commands.line(process.stdout)).removeprefix("ready ")
        assert url.startswith("https://")
        status, _ = await fetch(url, "/v1/models", trust=TlsTrust(ca_file=str(tmp_path / "ca.pem")))
        assert status == 200


async def test_the_key_is_read_from_a_variable() -> None:
    arguments = ("fake-provider", "--port", "0", "--key-env", "FAKE_KEY", "--kind", "cohere")
    async with commands.running(*arguments, environ={"FAKE_KEY": "sk-CANARY"}) as process:
        url = (await commands.line(process.stdout)).removeprefix("ready ")
        status, body = await fetch(url, "/v1/models")
        assert (status, b'"id"' in body) == (401, True)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--kind", "madeup"), '--kind: there is no kind "madeup", only openai, anthropic, gemini, cohere, cerebras'),
        (("--script", "none.toml"), "none.toml: cannot be read: No such file or directory"),
        (("--key-env", "NO_SUCH"), "--key-env: the environment variable NO_SUCH is not set"),
        (("--tls-key", "key.pem"), "--tls-key needs --tls-cert"),
        (("--tls-cert", "none.pem"), "--tls-cert none.pem: cannot be used: No such file or directory"),
        (("--tls-cert", __file__), "cannot be used: "),
    ],
)
async def test_what_must_be_put_right_is_one_line_and_2(arguments: tuple[str, ...], told: str) -> None:
    done = await commands.run("fake-provider", *arguments)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("kind", ["anthropic", "gemini", "cohere", "cerebras"])
async def test_a_configured_provider_reaches_it(tmp_path: Path, kind: str) -> None:
    async with FakeProvider(key="sk-CANARY") as fake:
        file = tmp_path / "config.toml"
        url = fake.base_url(LLMProvider(kind))
        file.write_text(f'[providers.x]\nkind = "{kind}"\nbase_url = "{url}"\napi_key = "env:FAKE_KEY"\n')
        done = await commands.run("ask", "--config", str(file), "Hello there", FAKE_KEY="sk-CANARY")
        assert (done.code, done.out) == (0, "You said: Hello there\n"), done.err


async def test_a_port_in_use_is_told(tmp_path: Path) -> None:
    async with commands.running("fake-provider", "--port", "0") as process:
        port = (await commands.line(process.stdout)).rpartition(":")[2]
        done = await commands.run("fake-provider", "--port", port)
        assert done.code == 2
        assert f"port {port} on 127.0.0.1 is in use" in done.err
