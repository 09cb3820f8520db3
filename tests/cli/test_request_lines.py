"""The line that each request leaves in a daemon's log, as JSON and as text."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio

from support.commands import rest, running
from support.daemon import vendor
from support.killable import CONFIG
from support.peer import Peer, reply
from support.server import HttpClient, open_server

KEYS = '\n[keys.alice]\nsecret = "env:ALICE"\n[prices."fake/fake-1"]\ninput = 1000\noutput = 10000\n'
SECRET = "CANARY-secret-of-alice"
PROMPT = "tell CANARY-prompt-42 to me"


async def lines(url: str, folder: Path, form: str, *bodies: dict[str, Any], key: str = SECRET) -> list[str]:
    """What a daemon logs of these requests."""
    config = folder / "config.toml"
    config.write_text(CONFIG.format(folder=folder, url=url, store="") + KEYS)
    arguments = ("serve", "--config", str(config), "--log-format", form)
    async with running(*arguments, stdout=subprocess.PIPE, environ={"ALICE": SECRET}) as process:
        assert process.stdout is not None
        port = int((await process.stdout.receive_some()).decode().rsplit(":", 1)[1])
        sock = trio.socket.socket()
        await sock.connect(("127.0.0.1", port))
        async with HttpClient(trio.SocketStream(sock)) as client:
            for body in bodies:
                headers = {"authorization": f"Bearer {key}", "x_request_id": "mine-1", "traceparent": TRACE}
                await client.request("POST", "/v1/chat/completions", body, **headers)
        process.terminate()
        return (await rest(process.stderr)).splitlines()


TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "fake-1", "messages": [{"role": "user", "content": text}], **more}


async def test_a_request_leaves_a_line_with_fields(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        bodies = chat(f"say {PROMPT}", stream=True, seed=7), chat("fail overloaded")
        said = [json.loads(line) for line in await lines(upstream.address.url, tmp_path, "json", *bodies)]
        first, second, *_ = [line for line in said if "attempts" in line]
        assert first["message"].startswith(f"request {first['id']} of alice completed by fake/fake-1 in ")
        expected = {
            "client_id": "mine-1", "caller": "alice", "model": "fake-1", "deployment": "fake/fake-1", "status": 200,
            "input_tokens": 3, "output_tokens": 2, "attempts": 1,
        }  # fmt: skip
        assert {name: first[name] for name in expected} == expected
        assert first["cost"] == pytest.approx(0.023)
        assert 0 < first["first_token_ms"] <= first["ms"]
        assert (second["failure"], second["status"], second["upstream_status"]) == ("overloaded", 503, 503)
        assert second["upstream_words"]
        assert "CANARY" not in str(said)


async def test_the_text_says_it_shortly(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        said = await lines(upstream.address.url, tmp_path, "text", chat(f"say {PROMPT}"))
        (line,) = [each for each in said if " of alice completed by fake/fake-1 in " in each]
        assert "1 attempt, " in line
        assert "3 input and 2 output tokens, $0.023000" in line
        assert "client's id mine-1" in line
        assert "CANARY" not in str(said)


async def test_what_a_vendor_quotes_of_the_request_is_taken_out_and_its_ids_go_on(tmp_path: Path) -> None:
    error = json.dumps({"error": {"message": f"your input '{PROMPT}' and key {SECRET} are not allowed"}}).encode()
    async with Peer(reply(error, status=400, headers={"content-type": "application/json"})) as peer:
        said = await lines(peer.url, tmp_path, "json", chat(PROMPT))
        (line,) = [each for each in map(json.loads, said) if "attempts" in each]
        assert "are not allowed" in line["upstream_words"]
        assert "CANARY-prompt" not in str(said)
        heads = dict(peer.requests[0].headers)
        assert (heads["x-request-id"], heads["traceparent"]) == ("mine-1", TRACE)


async def test_a_wrong_key_leaves_a_line(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        said = await lines(upstream.address.url, tmp_path, "json", chat(PROMPT), key="CANARY-wrong-key")
        assert [each["level"] for each in map(json.loads, said) if each["message"] == "a wrong key from 127.0.0.1"] == [
            "warning"
        ]
        assert "CANARY" not in str(said)
