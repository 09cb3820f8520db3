"""Keys that change: in files, from commands and functions, and refused in the middle of everything."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from llm_actors.provider import KeyRenewer, PassthroughRequest, send_passthrough
from llm_actors.provider.renewal import FETCH_SECONDS, RETRY_SECONDS
from llm_protocol.errors import AuthenticationError
from llm_protocol.events import Failed
from llm_protocol.failures import FailureKind
from llm_protocol.secret import Secret
from llm_runtime.config import ConfigError, parse
from llm_runtime.key_sources import FILE_SECONDS, renewer
from support.peer import Call, Peer, reply, sse
from support.upstream import END, HELLO, JSON, upstream, whole

AGE = 100.0
TOKENS = ["one-0123456789", "two-0123456789", "three-0123456789"]


class Source:
    """Gives one token after the other; an exception is raised."""

    def __init__(self, *tokens: str | Exception, seconds: float = 0.0) -> None:
        self.tokens = list(tokens)
        self.seconds = seconds
        self.asked = 0

    async def __call__(self) -> Secret:
        self.asked += 1
        await trio.sleep(self.seconds)
        token = self.tokens.pop(0)
        if isinstance(token, Exception):
            raise token
        return Secret(token)


async def test_a_key_is_got_once_and_again_when_it_is_old(autojump_clock: MockClock) -> None:
    source = Source(*TOKENS, seconds=0.1)
    keys = KeyRenewer("a", source, AGE)
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(keys.refresh)
    assert (keys.current, source.asked) == (Secret(TOKENS[0]), 1)
    await trio.sleep(AGE - 1)
    await keys.refresh()
    assert source.asked == 1
    await trio.sleep(1)
    await keys.refresh()
    assert (keys.current, source.asked) == (Secret(TOKENS[1]), 2)


async def test_a_refused_key_is_renewed_once_by_all_that_were_refused(autojump_clock: MockClock) -> None:
    source = Source(*TOKENS[:2], seconds=0.1)
    keys = KeyRenewer("a", source, AGE)
    await keys.refresh()
    refused = keys.current
    results = []

    async def renew() -> None:
        results.append(await keys.renew(refused))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(renew)
    assert (results, source.asked) == ([True] * 50, 2)


async def test_a_key_that_cannot_be_renewed_is_used_on(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source(TOKENS[0], ValueError("the command az exited with status 1"), TOKENS[1])
    keys = KeyRenewer("a", source, AGE)
    await keys.refresh()
    await trio.sleep(AGE)
    await keys.refresh()
    assert keys.current == Secret(TOKENS[0])
    assert "the key of a was not renewed: the command az exited with status 1; the old one stays in use" in caplog.text
    assert TOKENS[0] not in caplog.text
    await trio.sleep(RETRY_SECONDS)
    await keys.refresh()
    assert keys.current == Secret(TOKENS[1])


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (Source(ValueError("the command az exited with status 1")), "the command az exited with status 1"),
        (Source(RuntimeError("tok-secret")), "RuntimeError"),
        (Source(TOKENS[0], seconds=60), f"fetching it took longer than {FETCH_SECONDS:g} s"),
    ],
    ids=["fails", "a bug", "hangs"],
)
async def test_without_a_key_a_request_is_refused_and_says_why(
    autojump_clock: MockClock, source: Source, why: str
) -> None:
    with pytest.raises(AuthenticationError, match=f"^a: the key is not available: {why}$"):
        await KeyRenewer("a", source, AGE).refresh()


async def test_all_that_wait_for_a_key_that_does_not_come_learn_it_together(autojump_clock: MockClock) -> None:
    source = Source(*TOKENS, seconds=60)
    keys = KeyRenewer("a", source, AGE)
    ended: list[float] = []

    async def ask() -> None:
        with pytest.raises(AuthenticationError, match="fetching it took longer"):
            await keys.refresh()
        ended.append(trio.current_time())

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask)
    assert {each - began for each in ended} == {FETCH_SECONDS}
    assert source.asked == 1


async def test_all_whose_key_was_refused_learn_together_that_there_is_no_other(autojump_clock: MockClock) -> None:
    source = Source(TOKENS[0], TOKENS[0], seconds=1)
    keys = KeyRenewer("a", source, AGE)
    await keys.refresh()
    results: list[bool] = []

    async def renew() -> None:
        results.append(await keys.renew(keys.current))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(renew)
    assert (results, source.asked) == ([False] * 50, 2)


async def test_a_cancelled_fetch_leaves_the_next_one_free(autojump_clock: MockClock) -> None:
    source = Source(*TOKENS[:2], seconds=1)
    keys = KeyRenewer("a", source, AGE)
    with trio.move_on_after(0.5):
        await keys.refresh()
    await keys.refresh()
    assert source.asked == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streams"])
async def test_a_token_that_expires_in_mid_run_fails_no_request(autojump_clock: MockClock, stream: bool) -> None:
    """50 at once, whose token the vendor has just stopped taking."""
    source = Source(*TOKENS)
    good = [TOKENS[0]]

    async def answer(call: Call) -> None:
        assert call.request is not None
        if call.request.headers["authorization"] == f"Bearer {good[0]}":
            await (sse(*HELLO, *END, gap=1) if stream else reply(whole(), headers=JSON))(call)
        else:
            await reply(b'{"error":{"message":"expired","code":"invalid_api_key"}}', 401, JSON)(call)

    async with Peer(answer) as peer, upstream(peer, slots=64, renewer=KeyRenewer("fake", source, AGE)) as provider:
        assert (await provider.ask(stream=stream)).text == "Hello there"
        good[0] = TOKENS[1]
        asked = []

        async def ask() -> None:
            asked.append(await provider.ask(stream=stream))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(ask)
        assert [each.text for each in asked] == ["Hello there"] * 50
        assert source.asked == 2
        good[0] = "none"
        failed = await provider.ask(stream=stream)
        assert failed.outcome is not None
        assert isinstance(failed.outcome.end, Failed)
        assert source.asked == 3, "once more, and no oftener"


class Nobody:
    """Takes no response."""

    async def begin(self, status: int, headers: tuple[tuple[str, str], ...], length: int | None) -> None:
        raise AssertionError

    async def send(self, data: bytes) -> None:
        raise AssertionError


async def test_a_passthrough_without_a_key_says_why(autojump_clock: MockClock) -> None:
    """Also often: it is no crash, after which the provider would be parked."""
    source = Source(*[ValueError("the command az exited with status 1")] * 20)
    async with Peer() as peer, upstream(peer, renewer=KeyRenewer("fake", source, AGE)) as provider:
        message = PassthroughRequest(method="GET", path="/v1/files", headers=(), body=b"", taker=Nobody())
        for _ in range(20):
            passed = await send_passthrough(provider.ref, message)
            assert passed.failure is not None
            assert passed.failure.kind is FailureKind.AUTH
            assert passed.failure.message == "fake: the key is not available: the command az exited with status 1"
            assert passed.unsent


async def got(key: Secret) -> Secret | None:
    keys = renewer("a", key, AGE)
    assert keys is not None
    await keys.refresh()
    return keys.current


async def test_a_command_a_file_and_functions(tmp_path: Path) -> None:
    script = tmp_path / "key.py"
    script.write_text(f"print({TOKENS[0]!r})")
    assert await got(Secret(source=f"cmd:{sys.executable} '{script}'")) == Secret(TOKENS[0])
    assert await got(Secret(source=lambda: TOKENS[1])) == Secret(TOKENS[1])

    async def later() -> str:
        await trio.lowlevel.checkpoint()
        return TOKENS[2]

    assert await got(Secret(source=later)) == Secret(TOKENS[2])
    file = tmp_path / "key"
    file.write_text(TOKENS[0])
    assert await got(Secret(source=f"file:{file}")) == Secret(TOKENS[0])


async def test_a_file_is_read_again(tmp_path: Path, mock_clock: MockClock) -> None:
    file = tmp_path / "key"
    file.write_text(TOKENS[0])
    keys = renewer("a", Secret(source=f"file:{file}"), AGE)
    assert keys is not None
    await keys.refresh()
    file.write_text(TOKENS[1])
    mock_clock.jump(FILE_SECONDS)
    await keys.refresh()
    assert (keys.current, FILE_SECONDS) == (Secret(TOKENS[1]), 5.0)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(3)", "exited with status 3"),
        ("import os; os.kill(os.getpid(), 15)", "was ended by signal 15"),
        ("print()", "is empty"),
        ("print('two words')", "is not a key"),
        ("print('x' * 100_000)", "wrote more than 16384 bytes"),
    ],
    ids=["fails", "killed", "nothing", "words", "too much"],
)
async def test_commands_that_give_no_key(program: str, why: str) -> None:
    with pytest.raises(AuthenticationError, match=why):
        await got(Secret(source=f'cmd:{sys.executable} -c "{program}"'))
    with pytest.raises(AuthenticationError, match="the command no-such-command cannot be run"):
        await got(Secret(source="cmd:no-such-command"))


async def test_a_command_that_hangs_is_killed(mock_clock: MockClock) -> None:
    mock_clock.rate = 20.0
    with pytest.raises(AuthenticationError, match="longer than 10 s"):
        await got(Secret(source=f'cmd:{sys.executable} -c "import time; time.sleep(60)"'))


async def test_a_hanging_command_leaves_no_process_behind(
    mock_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell waits for its pipeline, which outlived it: one more with each try to renew the key."""
    monkeypatch.setattr("llm_runtime.key_sources.KILL_SECONDS", 1_000.0)  # a busy machine may take its time
    mock_clock.rate = 20.0
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    alive = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(AuthenticationError, match="longer than 10 s"):
            await got(Secret(source=f"cmd:sh -c 'sleep 60 9> {fifo}; true'"))
        with trio.fail_after(50):
            await trio.lowlevel.wait_readable(alive)  # nobody has it open for writing any more
        assert os.read(alive, 1) == b""
    finally:
        os.close(alive)


async def test_a_key_is_there_when_its_command_has_ended(mock_clock: MockClock, tmp_path: Path) -> None:
    """A process that it started, such as an agent, keeps its output open."""
    fifo = tmp_path / "end"
    os.mkfifo(fifo)
    try:
        assert await got(Secret(source=f"cmd:sh -c 'cat {fifo} & echo {TOKENS[0]}'")) == Secret(TOKENS[0])
    finally:
        os.close(os.open(fifo, os.O_WRONLY))


async def test_a_command_does_not_read_what_is_meant_for_this_program(tmp_path: Path) -> None:
    """Such as the prompt that is piped to ``llm-runtime ask``."""
    program = tmp_path / "program.py"
    program.write_text(
        "import trio\n"
        "from llm_protocol.secret import Secret\n"
        "from llm_runtime.key_sources import renewer\n"
        "async def main():\n"
        "    keys = renewer('a', Secret(source='cmd:sh -c \"cat; echo k-0123456789\"'), 100.0)\n"
        "    await keys.refresh()\n"
        "    print(keys.current.reveal(), input())\n"
        "trio.run(main)\n"
    )
    done = await trio.run_process([sys.executable, str(program)], stdin=b"prompt", capture_stdout=True)
    assert done.stdout == b"k-0123456789 prompt\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('api_key = "cmd:"', "a key must not be written here"),
        ('api_key = "env:K"\nheaders = { authorization = "Bearer x" }', "a key must not be written here: use api_key"),
        ('api_key = "env:K"\nheaders = { x-api-key = "x" }', "a key must not be written here: use api_key"),
        ('api_key = "env:K"\nheaders = { host = "x" }', "the runtime sets this header itself; omit it"),
        ('api_key = "env:K"\nheaders = { "a b" = "x" }', "not a valid header name"),
        ('api_key = "env:K"\nheaders = { a = "ü" }', "printable ASCII"),
        ('api_key = "env:K"\nauth_header = "a b"', 'write it as "api-key"'),
        ('api_key = "env:K"\norganization = "o"', 'kind "groq" has no organization'),
        ('api_key = "env:K"\napi_version = "1"', 'kind "groq" has no api_version'),
        ('api_key = "env:K"\nbase_url = "https://x.test/v1/chat/completions"', 'write "https://x.test/v1"'),
        ('api_key = "env:K"\napi_key_age_s = 0', "api_key_age_s"),
    ],
)
def test_mistakes_are_told_in_words(line: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f'[providers.a]\nkind = "groq"\n{line}'.encode(), {"K": TOKENS[0]})
    assert told in str(caught.value)


def test_a_caller_has_no_command() -> None:
    with pytest.raises(ConfigError, match="a key must not be written here"):
        parse(b'[keys.a]\nsecret = "cmd:echo x"', {})


def test_an_address_without_its_path_is_understood() -> None:
    source = b'[providers.a]\nkind = "openai"\napi_key = "env:K"\nbase_url = "https://api.openai.com/"'
    assert parse(source, {"K": TOKENS[0]}).providers["a"].base_url == "https://api.openai.com/v1"


async def test_a_cancelled_renewal_is_none_for_the_others_that_were_refused(autojump_clock: MockClock) -> None:
    """The client of the request that fetched the key has left. The others failed, as if there were no other key."""
    scopes: dict[trio.lowlevel.Task, trio.CancelScope] = {}
    results: list[bool] = []
    fetches = 0

    async def fetch() -> Secret:
        nonlocal fetches
        fetches += 1
        if fetches == 2:
            scopes[trio.lowlevel.current_task()].cancel()
            await trio.sleep(1)
        return Secret(TOKENS[fetches - 1])

    keys = KeyRenewer("a", fetch, AGE)
    await keys.refresh()
    refused = keys.current

    async def renew() -> None:
        with trio.CancelScope() as scopes[trio.lowlevel.current_task()]:
            results.append(await keys.renew(refused))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(renew)
    assert (results, fetches) == ([True, True], 3)
