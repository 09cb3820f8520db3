"""``llm-runtime ask`` as a person meets it: a real process, real files, and a provider or daemon on loopback."""

import json
import os
import pty
import signal
from pathlib import Path

import pytest
import trio

from support import commands
from support.peer import Peer, Step, chunked, reply, reset, sse, stall

SSE = {"content-type": "text/event-stream"}


def piece(text: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


def answer(*texts: str) -> Step:
    return sse(*map(piece, texts), piece("", "stop"), "[DONE]")


async def ask(*arguments: str, stdin: bytes = b"", **extra: str) -> commands.Done:
    return await commands.run("ask", *arguments, stdin=stdin, **extra)


async def test_a_daemon_is_asked_and_its_answer_printed() -> None:
    async with Peer(answer("Hel", "lo.")) as peer:
        code, out, err = await ask("--url", peer.url, "--system", "Be brief.", "--model", "x/y", "Say", "hello")
        assert (code, out, err) == (0, "Hello.\n", "")
        [request] = peer.requests
        assert (request.method, request.target) == ("POST", "/v1/chat/completions")
        body = json.loads(request.body)
        assert (body["model"], body["stream"]) == ("x/y", True)
        assert [message["role"] for message in body["messages"]] == ["system", "user"]
        assert "authorization" not in request.headers


async def test_the_daemons_key_and_address_come_from_the_environment() -> None:
    async with Peer(answer("hi")) as peer:
        code, out, _ = await ask("hi", LLM_RUNTIME_URL=f"{peer.url}/v1/", LLM_RUNTIME_KEY="sk-CANARY")
        assert (code, out) == (0, "hi\n")
        assert peer.requests[0].headers["authorization"] == "Bearer sk-CANARY"
        assert json.loads(peer.requests[0].body)["model"] == "auto"


async def test_no_model_is_any_model() -> None:
    """``--model "$MODEL"`` with an empty variable."""
    async with Peer(answer("hi")) as peer:
        assert (await ask("--url", peer.url, "--model", "", "hi")).code == 0
        assert json.loads(peer.requests[0].body)["model"] == "auto"


async def test_a_configuration_is_used_in_process(tmp_path: Path) -> None:
    async with Peer(answer("hi")) as peer:
        file = tmp_path / "c.toml"
        file.write_text(f'[providers.p]\nkind = "openai_compatible"\nbase_url = "{peer.url}/v1"\nmodels = ["only"]\n')
        code, out, _ = await ask("--config", str(file), "hi", LLM_RUNTIME_URL="http://127.0.0.1:1")
        assert (code, out) == (0, "hi\n")
        assert json.loads(peer.requests[0].body)["model"] == "only"


async def test_what_is_piped_in_is_part_of_the_question() -> None:
    async with Peer(answer("ok")) as peer:
        await ask("--url", peer.url, "Summarise:", stdin=b"a long text\n")
        await ask("--url", peer.url, stdin=b"only this\n")
        asked = [json.loads(request.body)["messages"][0]["content"] for request in peer.requests]
        assert asked == ["Summarise:\n\na long text", "only this"]


async def test_no_question_is_no_request() -> None:
    async with Peer() as peer:
        code, out, err = await ask("--url", peer.url)
        assert (code, out) == (2, "")
        assert err == 'llm-runtime: there is no question; for example: llm-runtime ask "Say hello."\n'
        assert peer.requests == []


async def test_a_refusal_is_one_line() -> None:
    body = json.dumps({"error": {"message": "no such key", "type": "invalid_request_error", "code": "x"}}).encode()
    async with Peer(reply(body, 401, {"content-type": "application/json"})) as peer:
        code, out, err = await ask("--url", peer.url, "hi")
    assert (code, out) == (1, "")
    [line] = [line for line in err.splitlines() if line.startswith("llm-runtime: ")]
    assert "Traceback" not in err
    assert line == "llm-runtime: no such key (the key for a daemon is taken from LLM_RUNTIME_KEY)"


async def test_a_broken_answer_keeps_what_came_and_fails() -> None:
    """G5: a cut stream is never a success."""
    cut = [chunked(f"data: {piece('Hel')}\n\n".encode(), headers=SSE, end=False), reset()]
    async with Peer(cut) as peer:
        code, out, err = await ask("--url", peer.url, "hi")
    assert (code, out) == (1, "Hel\n")
    assert err.splitlines()[-1].startswith("llm-runtime: ")
    assert "Traceback" not in err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_ctrl_c_cancels_down_to_the_socket(number: signal.Signals) -> None:
    slow = [chunked(f"data: {piece('Hel')}\n\n".encode(), headers=SSE, end=False), stall()]
    async with Peer(slow) as peer, commands.running("ask", "--url", peer.url, "hi") as process:
        assert process.stdout
        assert process.stderr
        assert await process.stdout.receive_some() == b"Hel"
        process.send_signal(number)
        with trio.fail_after(1):
            await peer.until(lambda: peer.aborted == 1)
        assert await process.wait() == 130
        assert await commands.rest(process.stdout) == "\n"
        assert await commands.rest(process.stderr) == ""


async def test_a_reader_that_leaves_ends_it_quietly() -> None:
    """``ask | head -1``"""
    many = sse(*[piece("line\n" * 100)] * 200, gap=0.005)
    async with Peer(many) as peer, commands.running("ask", "--url", peer.url, "hi") as process:
        assert process.stdout
        await process.stdout.receive_some()
        await process.stdout.aclose()
        assert await process.wait() == 141
        assert await commands.rest(process.stderr) == ""


async def test_a_full_disk_is_said() -> None:
    """It is not taken for a reader that left, which is nothing to speak of."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        peer = Peer(answer("Hello."))
        async with peer, commands.running("ask", "--url", peer.url, "hi", stdout=full) as process:
            assert process.stderr
            assert await process.wait() == 1
            said = await commands.rest(process.stderr)
    finally:
        os.close(full)
    assert said == "llm-runtime: cannot write the response: No space left on device\n"


async def test_an_answer_that_was_cut_off_says_so() -> None:
    async with Peer(sse(piece("Once upon"), piece("", "length"), "[DONE]")) as peer:
        code, out, err = await ask("--url", peer.url, "hi")
    assert (code, out) == (0, "Once upon\n")
    assert err == "llm-runtime: the response is incomplete: it was cut off at the limit of output tokens\n"


async def test_a_terminal_is_not_steered_by_an_answer() -> None:
    main, terminal = pty.openpty()
    try:
        peer = Peer(answer("a\x1b]0;owned\x07b", "\tc"))
        async with peer, commands.running("ask", "--url", peer.url, "hi", stdout=terminal) as process:
            assert await process.wait() == 0
        assert os.read(main, 1000) == b"a]0;ownedb\tc\r\n"
    finally:
        os.close(main)
        os.close(terminal)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--url", "ftp://u:CANARY@x", "hi"],
            "the daemon's URL (--url or LLM_RUNTIME_URL) is not an address like http://127.0.0.1:8080",
        ),
        (["--url", "http://127.0.0.1:1", "--config", "x", "hi"], "give only one of them"),
        (["--config", "/no/such.toml", "hi"], "/no/such.toml: cannot read the configuration: No such file"),
    ],
)
async def test_what_must_be_put_right_first_exits_with_2(arguments: list[str], said: str) -> None:
    code, out, err = await ask(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "CANARY" not in err
    assert len(err.splitlines()) == 1


async def test_an_address_where_nobody_listens_is_one_line() -> None:
    async with Peer() as peer:
        peer.stop_listening()
        code, _, err = await ask("--url", peer.url, "hi")
    assert code == 1
    assert "Connection refused" in err.splitlines()[-1]
    assert "Traceback" not in err
