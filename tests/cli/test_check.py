"""``llm-runtime check`` as an operator runs it: a real process, and providers that are there or not."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_runtime import local_model
from llm_runtime.cli.setup import CHECKOUT, configured
from llm_runtime.config import Config, Provider, Server, Timeouts
from llm_runtime.fake import FakeProvider
from llm_runtime.probes import CHECK_SECONDS, CheckStatus, check, places
from support import commands
from support.peer import Peer, Step, close, raw, reply, stall
from support.redis import redis
from support.upstream import JSON

KEY = "pass-CANARY-word"
"""Of a form that no pattern for keys would find."""


def models(*names: str) -> Step:
    return reply(json.dumps({"data": [{"id": name} for name in names]}).encode(), headers=JSON)


def said(message: str, status: int) -> Step:
    return reply(json.dumps({"error": {"message": message}}).encode(), status, JSON)


def provider(name: str, url: str, *more: str, kind: str = "openai") -> str:
    entry = [f"[providers.{name}]", f'kind = "{kind}"', f'base_url = "{url}"', 'api_key = "env:K"', *more]
    return "\n".join(entry) + "\n"


def file_of(folder: Path, *parts: str, port: int = 0) -> str:
    file = folder / "c.toml"
    file.write_text(f"[server]\nport = {port}\n" + "".join(parts))
    return str(file)


async def run(file: str, *arguments: str) -> commands.Done:
    return await commands.run("check", "--config", file, *arguments, K=KEY)


def lines(done: commands.Done) -> dict[str, tuple[str, str]]:
    """``what name`` -> status and detail, with the time left out."""
    assert KEY not in done.out + done.err
    found = {}
    for line in done.out.splitlines()[:-1]:
        match = re.fullmatch(r"(ok|warning|failed) +(\w+(?: model| log)?) +(\S+)  +(?:\d+\.\d\d s +)?(\S.*)", line)
        assert match, line
        found[f"{match[2]} {match[3]}"] = match[1], match[4]
    return found


async def as_json(file: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = await run(file, "--json", *arguments)
    assert KEY not in done.out + done.err
    return done.code, json.loads(done.out)


async def test_all_is_well(tmp_path: Path) -> None:
    """Everything was really asked, nobody for an answer, and nothing is left anywhere."""
    with redis() as server:
        async with FakeProvider(key=KEY) as fake:
            kinds = [kind for kind in LLMProvider if kind is not LLMProvider.LOCAL]
            entries = [provider(kind, fake.base_url(kind), kind=kind.value) for kind in kinds]
            file = file_of(
                tmp_path,
                f'[redis]\nurl = "redis://127.0.0.1:{server.port}/0"\ntimeout_s = 5\n',
                f'[cache]\nenabled = true\npath = "{tmp_path}/new/cache.db"\n',
                *entries,
                '[routes.r]\ncandidates = ["openai/fake-chat", "gemini/fake-chat"]\n',
            )
            done = await run(file)
            asked = [seen.path for seen in fake.journal.requests]
        assert server.command("KEYS", "*") == b"*0\r\n"

    assert (done.code, done.err) == (0, "")
    found = lines(done)
    assert {name: detail for name, (status, detail) in found.items() if status == "failed"} == {}
    assert all(found[f"provider {kind}"] == ("ok", "3 models") for kind in kinds)
    assert found[f"cache {tmp_path}/new/cache.db"] == ("ok", f"can be created in {tmp_path}")
    assert found[f"redis 127.0.0.1:{server.port}"][0] == "ok"
    assert found["route r"] == ("ok", "2 models")
    assert len(asked) == len(kinds)
    assert all("models" in path for path in asked)
    assert os.listdir(tmp_path) == ["c.toml"]


async def test_each_trouble_of_a_provider_is_one_line_with_its_cause(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    compatible = "openai_compatible"
    async with (
        FakeProvider(key="another") as wrong,
        Peer(said(f"No key {KEY} is known.", 401)) as echo,
        Peer(tls=context) as strange,
        Peer(reply(b"<html>Welcome</html>")) as garbage,
        Peer(stall()) as silent,
        Peer(said("Not here.", 404)) as elsewhere,
        Peer(said("Slow down.", 429)) as busy,
        Peer(models("m-1", "m-2")) as good,
        Peer() as gone,
    ):
        gone.stop_listening()
        file = file_of(
            tmp_path,
            provider("wrong", wrong.base_url(LLMProvider.ANTHROPIC), kind="anthropic"),
            provider("echo", f"{echo.url}/v1"),
            provider("strange", f"{strange.url}/v1"),
            provider("garbage", garbage.url, kind="gemini"),
            provider("silent", silent.url, "timeouts = { total = 0.5 }", kind="cohere"),
            provider("elsewhere", elsewhere.url, kind=compatible),
            provider("unlisted", elsewhere.url, 'models = ["m"]', kind=compatible),
            provider("busy", f"{busy.url}/v1"),
            provider("good", f"{good.url}/v1", 'models = ["m-1", "n-2"]'),
            provider("gone", f"{gone.url}/v1"),
            provider("nowhere", "https://no..such.host/v1"),
            provider("off", f"{gone.url}/v1", "enabled = false"),
        )
        done = await run(file)

    assert (done.code, done.err) == (1, "")
    found = {name.split()[1]: each for name, each in lines(done).items() if name.startswith("provider ")}
    assert {name: status for name, (status, _) in found.items() if status != "failed"} == {
        "unlisted": "warning",
        "busy": "warning",
        "good": "warning",
    }
    expected = {
        "wrong": "(HTTP 401); check providers.wrong.api_key: it must refer to a key that is valid for this address",
        "echo": "No key [redacted] is known (HTTP 401); check providers.echo.api_key",
        "strange": "certificate refused: unable to get local issuer certificate; if the certificate is self-signed",
        "garbage": "list cannot be decoded",
        "silent": "no complete list of models within 0.5 s; is base_url the address of the vendor's API",
        "elsewhere": "Not here (HTTP 404); is base_url the address of the vendor's API, such as https://host/v1?",
        "unlisted": "Not here (HTTP 404): no problem if it has no model list",
        "busy": "Slow down (HTTP 429); try again later",
        "good": 'not on its list of 2 models: n-2; did you mean "m-2"?',
        "gone": f"{gone.url}/v1/models: Connection refused; is base_url right, and can the server be reached",
        "nowhere": "https://no..such.host/v1/models: the name does not resolve",
    }
    assert found.keys() == expected.keys()
    assert {name: text for name, text in expected.items() if text not in found[name][1]} == {}, found


async def test_a_private_authority_is_trusted_when_it_is_named(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with Peer(models("m"), tls=context) as peer:
        done = await run(file_of(tmp_path, provider("p", f"{peer.url}/v1", 'ca_file = "ca.pem"')))
    assert done.code == 0
    assert lines(done)["provider p"] == ("ok", "1 model")


async def test_a_route_without_anybody_left_fails_and_others_are_warned_of(tmp_path: Path) -> None:
    async with Peer(models("m")) as up, Peer() as down:
        down.stop_listening()
        file = file_of(
            tmp_path,
            provider("up", f"{up.url}/v1"),
            provider("down", f"{down.url}/v1", 'models = ["m"]'),
            '[routes.both]\ncandidates = ["up/m", "down/m"]\n',
            '[routes.lost]\ncandidates = ["down/m"]\n',
            '[routes.free]\nstrategy = "panel"\nmembers = 2\n',
        )
        found = lines(await run(file))
    assert found["route both"] == ("warning", "down/m: its provider failed")
    assert found["route lost"] == ("failed", "down/m: its provider failed")
    assert found["route free"] == ("ok", "any model")


async def test_json_is_one_object_with_the_shape_of_a_providers_result(tmp_path: Path) -> None:
    async with Peer(models("m")) as peer, Peer(said("No.", 401)) as closed:
        good = await as_json(file_of(tmp_path, provider("p", f"{peer.url}/v1")))
        again = await as_json(file_of(tmp_path, provider("p", f"{peer.url}/v1")))
        bad = await as_json(file_of(tmp_path, provider("q", f"{closed.url}/v1")))
    code, result = good
    assert (code, result["success"], result["error"]) == (0, True, None)
    assert result.keys() == {"success", "id", "timestamp", "validation", "error"}
    assert result["id"] != again[1]["id"]
    assert datetime.fromisoformat(result["timestamp"]).utcoffset() is not None
    [found] = [each for each in result["validation"]["checks"] if each["what"] == "provider"]
    assert 0 < found.pop("seconds") < 10
    assert found == {"what": "provider", "name": "p", "status": "ok", "detail": "1 model"}
    assert bad[0] == 1
    assert (bad[1]["success"], bad[1]["error"]) == (False, "failed: provider q")


async def test_a_wrong_configuration_is_told_as_serve_tells_it(tmp_path: Path) -> None:
    file = file_of(tmp_path, "prot = 1\n")
    served = await commands.run("serve", "--config", file)
    plain = await run(file)
    code, out, err = await run(file, "--json")
    assert plain == served == (2, "", f'llm-runtime: {file}:3: server.prot: unknown key; did you mean "port"?\n')
    assert (code, err) == (2, served.err)
    result = json.loads(out)
    assert (result["success"], f"llm-runtime: {result['error']}\n") == (False, served.err)
    [found] = result["validation"]["checks"]
    assert (found["what"], found["name"], found["status"]) == ("configuration", file, "failed")


async def test_offline_nothing_is_touched(tmp_path: Path) -> None:
    async with Peer(models("m")) as peer:
        file = file_of(
            tmp_path,
            '[redis]\nurl = "redis://127.0.0.1:1/0"\n[cache]\nenabled = true\npath = "/proc/none/cache.db"\n',
            provider("p", f"{peer.url}/v1"),
            provider("q", f"{peer.url}/v1", 'models = ["gpt-6-luna"]'),
            '[routes.r]\ncandidates = ["p/x", "bare", "q/gpt-6-luna"]\n',
        )
        done = await run(file, "--offline")
        assert peer.connections == 0
    assert done.code == 0
    assert lines(done) == {
        f"configuration {file}": ("ok", "2 providers, 1 route"),
        "prices p": ("warning", "not known for x: responses have no cost, and max_cost excludes them"),
        "prices q": ("ok", "known for 1 model"),
        "route r": ("ok", "candidates: bare: unknown without the model lists of p"),
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_ends_it_down_to_the_sockets(tmp_path: Path, number: signal.Signals) -> None:
    async with Peer(stall()) as peer:
        arguments = ("check", "--json", "--config", file_of(tmp_path, provider("p", f"{peer.url}/v1")))
        async with commands.running(*arguments, environ={"K": KEY}) as process:
            await peer.until(lambda: peer.open_requests == 1)
            process.send_signal(number)
            with trio.fail_after(3):
                assert await process.wait() == 130
                await peer.until(lambda: peer.aborted == 1)
            assert await commands.rest(process.stdout) == ""
            assert await commands.rest(process.stderr) == ""


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_redis_that_is_none_or_away_fails_alone(tmp_path: Path, is_there: bool) -> None:
    nonsense = [raw(b"HTTP/1.1 400 Bad Request\r\n\r\n"), close()]
    async with Peer(models("m")) as peer, Peer(greeting=nonsense) as other:
        if not is_there:
            other.stop_listening()
        section = f'[redis]\nurl = "redis://127.0.0.1:{other.port}/0"\n'
        done = await run(file_of(tmp_path, section, provider("p", f"{peer.url}/v1")))
    assert (done.code, done.err) == (1, "")
    status, detail = lines(done)[f"redis 127.0.0.1:{other.port}"]
    assert status == "failed"
    assert ("Connection refused" in detail) is not is_there
    assert lines(done)["provider p"][0] == "ok"


async def test_a_disk_that_takes_nothing_is_told(tmp_path: Path) -> None:
    """Files can be made on it, and that is all."""
    async with Peer(models("m")) as peer:
        cache = f'[cache]\nenabled = true\npath = "{tmp_path}/cache.db"\n'
        file = file_of(tmp_path, cache, provider("p", f"{peer.url}/v1"))
        command = f"ulimit -f 0; exec {shlex.join([*commands.COMMAND, 'check', '--config', file])}"
        async with commands.started(["/bin/sh", "-c", command], subprocess.PIPE, {"K": KEY}) as process:
            told = await commands.rest(process.stdout)
            assert await process.wait() == 1
    assert "cannot be written" in told
    assert "File too large" in told


async def test_store_and_request_log_are_tried_where_they_are(tmp_path: Path) -> None:
    async with Peer(models("m")) as peer:
        file = file_of(
            tmp_path,
            '[store]\npath = "/proc/none/x.sqlite"\n',
            '[request_log]\npath = "/proc/none/requests"\n',
            provider("p", peer.url),
        )
        done = await run(file)
        found = lines(done)
        assert done.code == 1
        for name in ("store /proc/none/x.sqlite", "request log /proc/none/requests"):
            assert found[name] == ("failed", "cannot be written: /proc: No such file or directory"), found
        assert all("/proc" not in name for name in lines(await run(file, "--offline")))


async def test_a_port_in_use_is_a_warning_since_the_daemon_may_run_already(tmp_path: Path) -> None:
    async with Peer(models("m")) as peer:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            done = await run(file_of(tmp_path, provider("p", f"{peer.url}/v1"), port=port))
    assert done.code == 0
    assert lines(done)[f"address 127.0.0.1:{port}"][0] == "warning"


async def test_a_checkouts_missing_model_is_not_installed_but_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_model, "is_installed", lambda: False)
    monkeypatch.setattr(places, "is_installed", lambda: False)
    config = configured(None, {CHECKOUT: "1"}, print, install=False)
    checks = await check(config, "environment")
    [found] = [each for each in checks if each.what == "local model"]
    assert (found.name, found.status) == ("local", CheckStatus.WARNING)
    assert found.detail == "not installed; serve will download it once (about 130 MB)"


async def test_nobody_is_waited_for_longer_than_the_bound(autojump_clock: trio.testing.MockClock) -> None:
    timeouts = Timeouts(connect=1_000, total=1_000)
    async with Peer(stall()) as peer:
        entry = Provider(kind=LLMProvider.OPENAI, base_url=f"{peer.url}/v1", api_key=Secret(KEY), timeouts=timeouts)
        begun = trio.current_time()
        checks = await check(Config(server=Server(port=0), providers={"p": entry, "q": entry}), "x")
        assert trio.current_time() - begun < CHECK_SECONDS + 1
    found = [(each.status, each.seconds) for each in checks if each.what == "provider"]
    assert found == [(CheckStatus.FAILED, CHECK_SECONDS)] * 2
