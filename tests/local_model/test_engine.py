"""The engine actor keeps one process of the local model, and never leaves one behind.

The processes are real; most are a few lines of Python in the model's place.
"""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from llm_actors.kernel import ActorMessage, Inbox, MailboxSpec, Supervisor, running
from llm_actors.kernel.mailbox import Mailbox
from llm_actors.transport import HttpRequest, Transport, parse_url
from llm_runtime.local_model import LocalModelEngine, engine, engine_spec, is_installed
from llm_runtime.local_model.engine import EngineError

SERVER = """
import os, socket, sys, threading
def serve(statuses, port=0):
    listener = socket.create_server(("127.0.0.1", port))
    print("listening http://127.0.0.1:%d" % listener.getsockname()[1], flush=True)
    def answer():
        while True:
            connection, _ = listener.accept()
            connection.recv(4096)
            status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
            connection.sendall(b"HTTP/1.1 %d x\\r\\ncontent-length: 0\\r\\n\\r\\n" % status)
            connection.close()
    threading.Thread(target=answer, daemon=True).start()
"""
UNTIL_EOF = "sys.stdin.buffer.read(); os._exit(0)"


class Place:
    """Remembers where the engine said it is."""

    def __init__(self) -> None:
        self.urls: list[str] = []
        self.moved = trio.Event()

    def move(self, base_url: str) -> None:
        self.urls.append(base_url)
        self.moved.set()
        self.moved = trio.Event()


def script(body: str) -> Callable[[], Sequence[str]]:
    return lambda: [sys.executable, "-S", "-E", "-c", SERVER + body]


def supervised(place: Place, command: Callable[[], Sequence[str]]) -> Supervisor:
    return Supervisor([engine_spec(place, command)])


def children() -> set[int]:
    """The processes that any of our threads started and that still are."""
    return {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


@pytest.fixture(autouse=True)
async def no_process_is_left() -> AsyncIterator[None]:
    before = children()
    yield
    assert children() == before


async def test_it_has_started_when_the_model_is_healthy() -> None:
    place = Place()
    with trio.fail_after(10):
        async with running(supervised(place, script(f"serve([503, 503, 200]); {UNTIL_EOF}"))):
            [url] = place.urls
            assert url.startswith("http://127.0.0.1:")
            assert url.endswith("/v1")


async def test_a_process_that_dies_is_replaced_and_found_at_its_new_address() -> None:
    place = Place()
    with trio.fail_after(10):
        before = children()
        async with running(supervised(place, script(f"serve([200]); {UNTIL_EOF}"))):
            [pid] = children() - before
            moved = place.moved
            os.kill(pid, signal.SIGKILL)
            await moved.wait()
            assert len(set(place.urls)) == 2
            assert children() - before - {pid}


async def run_alone(command: Callable[[], Sequence[str]]) -> None:
    """Run an engine outside a supervisor, so that its end comes out."""
    inbox: Inbox[ActorMessage] = Inbox(Mailbox("engine", MailboxSpec()))
    with trio.fail_after(10):
        await LocalModelEngine(Place(), command).run(inbox, task_status=trio.TASK_STATUS_IGNORED)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("print('noise\\nno such tensor', file=sys.stderr); sys.exit(3)", "ended with exit code 3: no such tensor"),
        ("os.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("sys.stderr.buffer.write(b'x' * 300_000 + b'\\n\\x1b[31mred\\xff\\n'); sys.exit(1)", "code 1: [31mred"),
        ("serve([503]); sys.exit(4)", "ended with exit code 4"),
    ],
)
async def test_a_process_that_ends_says_how(body: str, said: str) -> None:
    with pytest.raises(EngineError, match="the local model's process") as caught:
        await run_alone(script(body))
    assert said in str(caught.value)


@pytest.mark.parametrize("says", ["hello", "x" * 300])
async def test_a_process_that_does_not_say_where_it_is_fails_the_start(says: str) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc(EngineError, match="did not report its address")):
        await run_alone(script(f"print({says!r}, flush=True); {UNTIL_EOF}"))


async def test_a_program_that_is_not_there_fails_the_start() -> None:
    with pytest.raises(EngineError, match="did not start: No such file or directory"):
        await run_alone(lambda: ["/no/such/program"])


async def test_a_process_that_will_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "QUIT_SECONDS", 0.1)
    with trio.fail_after(10):
        async with running(supervised(Place(), script("serve([200]); threading.Event().wait()"))):
            pass


async def test_cancelling_during_the_start_leaves_no_process(tmp_path: Path) -> None:
    pipe = tmp_path / "asked"
    os.mkfifo(pipe)
    asked = f"open({str(pipe)!r}, 'w').close(); "
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_alone, script(f"serve([503]); {asked}{UNTIL_EOF}"))
            async with await trio.open_file(pipe) as file:
                await file.read()
            nursery.cancel_scope.cancel()


async def test_the_process_gets_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-CANARY")
    with pytest.raises(EngineError) as caught:
        await run_alone(script("print(*os.environ.items(), file=sys.stderr); sys.exit(1)"))
    assert "PATH" in str(caught.value)
    assert "CANARY" not in str(caught.value)


@pytest.mark.skipif(not is_installed(), reason="the local model is not installed")
async def test_the_real_model_loads_and_lists_itself() -> None:
    place = Place()
    with trio.fail_after(30):
        async with running(Supervisor([engine_spec(place)])):
            origin, base = parse_url(place.urls[0])
            request = HttpRequest("GET", origin, f"{base}/models")
            async with aclosing(Transport()) as transport, transport.send(request) as response:
                assert b'"smollm2"' in await response.read()


@pytest.mark.skipif(not is_installed(), reason="the local model is not installed")
async def test_the_model_samples_as_its_makers_advise() -> None:
    """At llama.cpp's own default temperature one answer in some dozens is a minute of emoji."""
    place = Place()
    transport = Transport()
    with trio.fail_after(60):
        async with running(supervised(place, engine.command)):
            origin, _ = parse_url(place.urls[-1])
            async with transport.send(HttpRequest("GET", origin, "/props")) as response:
                settings = json.loads(await response.read())["default_generation_settings"]["params"]
        await transport.aclose()
    found = [round(settings[name], 3) for name in ("temperature", "top_p", "repeat_penalty")]
    assert found == [0.2, 0.9, 1.1]
