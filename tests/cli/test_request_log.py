"""The request log of a daemon, and what ``trace`` and ``replay`` make of it."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from llm_actors.request_log import VERSION, LoggedRequest, RequestLog, find, log_files, logged
from llm_actors.request_log.buffer import QUEUE_BYTES, TELL_SECONDS
from llm_actors.request_log.files import RequestLogFiles
from llm_actors.run import Run
from llm_protocol.content import Image, Message, Text, ToolCall
from llm_protocol.embedding import Embedding
from llm_protocol.events import Embedded, ItemDone, ItemStarted, Restarted, Started
from llm_protocol.requests import ChatRequest
from llm_runtime.cli.replay import difference
from support import commands
from support.daemon import vendor
from support.killable import killable_daemon
from support.server import Reply, add_text, begin_text, end_text, open_server

PROMPT = "say CANARY-prompt of mine"
KEYS = '\n[keys.alice]\nsecret = "env:ALICE"\n[keys.bob]\nsecret = "env:BOB"\n'
SECRETS: dict[str, Any] = {"ALICE": "CANARY-secret-of-alice", "BOB": "CANARY-secret-of-bob"}


def section(folder: Path, **more: object) -> str:
    said = "".join(f"{name} = {json.dumps(value)}\n" for name, value in more.items())
    return f'\n[request_log]\npath = "{folder}/requests"\n{said}'


async def logged_by_daemon(folder: Path, more: str, *asked: tuple[str, str]) -> list[Reply]:
    """Have a daemon answer these, as (caller, text), and end."""
    replies = []
    async with open_server(vendor) as upstream, killable_daemon(upstream, folder, KEYS + more, **SECRETS) as daemon:
        for whose, text in asked:
            body = {"model": "fake-1", "messages": [{"role": "user", "content": text}]}
            headers = {"authorization": f"Bearer {SECRETS[whose]}", "x_request_id": f"of-{whose.lower()}"}
            replies.append(await daemon.request("POST", "/v1/chat/completions", body, **headers))
        daemon.process.terminate()
        await daemon.process.wait()
    return replies


def lines(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for file in log_files(str(folder / "requests")) for line in Path(file).read_text().splitlines()
    ]


def mode_of(file: str) -> int:
    return stat.S_IMODE(Path(file).stat().st_mode)


def at_upstream(config: Path, url: str) -> None:
    """The same configuration with another address of the upstream."""
    text = config.read_text()
    config.write_text(text.replace(text.split('base_url = "')[1].split("/v1")[0], url))


def append_half_a_line(folder: Path) -> None:
    with Path(log_files(str(folder))[0]).open("a") as file:
        file.write('{"v": 1, "id": "req_half"\n')


async def test_without_opt_in_no_text_is_written_down(tmp_path: Path) -> None:
    await logged_by_daemon(tmp_path, section(tmp_path), ("ALICE", PROMPT), ("ALICE", "fail bad_request"))
    first, second = lines(tmp_path)
    assert (first["v"], first["outcome"], first["caller"], first["client_id"]) == (VERSION, "ok", "alice", "of-alice")
    assert first["redacted"]
    assert first["request"]["messages"] == [{"role": "user", "content": [{"type": "text", "characters": len(PROMPT)}]}]
    assert first["decision"]["attempts"][0]["outcome"] == "ok"
    assert [each["type"] for each in first["events"]][-1] == "finished"
    assert second["outcome"] == "bad_request"
    assert "CANARY" not in str((first, second))
    (file,) = log_files(str(tmp_path / "requests"))
    assert mode_of(file) == 0o600


async def test_without_opt_in_members_are_written_down_without_their_words(tmp_path: Path) -> None:
    route = '[routes.panel]\nstrategy = "panel"\nmembers = ["fake/fake-1", "fake/fail bad_request"]\n'
    body = {"model": "panel", "messages": [{"role": "user", "content": PROMPT}]}
    async with (
        open_server(vendor) as upstream,
        killable_daemon(upstream, tmp_path, KEYS + route + section(tmp_path), **SECRETS) as daemon,
    ):
        await daemon.request("POST", "/v1/chat/completions", body, authorization=f"Bearer {SECRETS['ALICE']}")
        daemon.process.terminate()
        await daemon.process.wait()
    (line,) = lines(tmp_path)
    assert {each["model"] for each in line["decision"]["members"]} >= {"fake-1"}
    assert "CANARY" not in str(line)
    assert "error" not in str(line["decision"])


async def test_only_those_who_opted_in_are_written_down(tmp_path: Path) -> None:
    await logged_by_daemon(tmp_path, section(tmp_path, keys=["bob"]), ("ALICE", PROMPT), ("BOB", PROMPT))
    assert [each["caller"] for each in lines(tmp_path)] == ["bob"]


async def test_trace_shows_the_steps_and_replay_what_differs(tmp_path: Path) -> None:
    await logged_by_daemon(tmp_path, section(tmp_path, redact=False), ("ALICE", PROMPT))
    (line,) = lines(tmp_path)
    assert line["request"]["messages"][0]["content"][0]["text"] == PROMPT
    assert "CANARY-secret" not in str(line)
    config = str(tmp_path / "config.toml")
    for wanted in (line["id"], line["response_id"], "of-alice"):
        done = await commands.run("trace", wanted, "--config", config)
        assert done.code == 0, done.err
        assert f"request {line['id']} of alice" in done.out
        assert "attempt 1: fake/fake-1" in done.out
        assert "ended: ok by fake/fake-1 after" in done.out
    unknown = await commands.run("trace", "req_nonsense", "--config", config)
    assert (unknown.code, unknown.err.count("\n")) == (2, 1)
    async with open_server(vendor) as upstream:
        at_upstream(tmp_path / "config.toml", upstream.address.url)
        same = await commands.run("replay", line["id"], "--config", config, **SECRETS)
        assert same.code == 0, same.err
        assert "the text is the same" in same.out
        assert upstream.engine.requests[0].messages[0].text == PROMPT  # type: ignore[union-attr]


async def test_a_replay_asks_the_provider_again_whatever_is_cached(tmp_path: Path) -> None:
    cached = f'[cache]\nenabled = true\npath = "{tmp_path}/cache.sqlite3"\n'
    await logged_by_daemon(tmp_path, cached + section(tmp_path, redact=False), ("ALICE", PROMPT))
    (line,) = lines(tmp_path)
    async with open_server(vendor) as upstream:
        at_upstream(tmp_path / "config.toml", upstream.address.url)
        for times in (1, 2):
            done = await commands.run("replay", line["id"], "--config", str(tmp_path / "config.toml"), **SECRETS)
            assert done.code == 0, done.err
            assert len(upstream.engine.requests) == times


def differences(before: Run, after: Run) -> list[str]:
    """What ``replay`` shows after the two lines of numbers."""
    line = logged(before, redacted=False, wall=0.0)
    assert line is not None
    assert after.log.end is not None
    assert after.log.end.response is not None
    written = msgspec.json.decode(msgspec.json.encode(line), type=LoggedRequest)
    return [*difference(written, after.log.end.response)][2:]


async def test_a_replay_compares_the_response_that_was_valid_at_the_end() -> None:
    """Not what was retracted, nor another choice; and of a response that broke off what there was."""
    plain, restarted, choices, broken = (Run(ChatRequest(messages=()), stream=True) for _ in range(4))
    begin_text(restarted)
    restarted.log.append(ItemDone(index=0, part=Text("Void. ")))
    restarted.log.append(ItemDone(index=1, part=ToolCall(id="1", name="void", arguments="{}")))
    restarted.log.append(Restarted())
    begin_text(choices)
    choices.log.append(ItemStarted(index=1, kind="text", choice=1))
    choices.log.append(ItemDone(index=1, part=Text("Other. ")))
    begin_text(broken)
    for run in (plain, restarted):
        begin_text(run)
    for run in (plain, restarted, choices):
        add_text(run, "answer")
        end_text(run)
    add_text(broken, "answer")
    broken.close()
    for run in (restarted, choices, broken):
        assert differences(run, plain) == ["the text is the same"]
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("same", [True, False])
async def test_a_replay_compares_embeddings_and_images(same: bool) -> None:
    def vectors(run: Run, number: float) -> None:
        run.log.append(Embedded((Embedding.of([0.5, number]),)))

    def image(run: Run, data: float) -> None:
        run.log.append(ItemStarted(index=1, kind="image"))
        run.log.append(ItemDone(index=1, part=Image(data=bytes([int(data)]), media_type="image/png")))

    for what, add in (("embeddings", vectors), ("images", image)):
        before, after = (Run(ChatRequest(messages=()), stream=True) for _ in range(2))
        for run, value in ((before, 1.0), (after, 1.0 if same else 2.0)):
            run.log.append(Started())
            add(run, value)
            end_text(run)
        assert differences(before, after) == [f"the {what} are {'the same' if same else 'different'}"]
    await trio.lowlevel.checkpoint()


async def test_a_redacted_request_cannot_be_replayed_and_a_bad_name_is_told(tmp_path: Path) -> None:
    await logged_by_daemon(tmp_path, section(tmp_path), ("ALICE", PROMPT))
    (line,) = lines(tmp_path)
    config = tmp_path / "config.toml"
    done = await commands.run("replay", line["id"], "--config", str(config), **SECRETS)
    assert done.code == 2
    assert "redact = false" in done.err
    config.write_text(config.read_text() + 'keys = ["nobody"]\n')
    done = await commands.run("serve", "--config", str(config), **SECRETS)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert 'request_log.keys: there is no key "nobody"' in done.err


def run_of(text: str) -> Run:
    run = Run(ChatRequest(model="m", messages=(Message.of("user", text),)), stream=True)
    begin_text(run)
    add_text(run, "answer")
    end_text(run)
    return run


async def test_old_days_go_and_the_oldest_make_room(tmp_path: Path) -> None:
    wall = datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp()
    for day in range(10):
        files = RequestLogFiles(
            str(tmp_path),
            max_bytes=1_000_000,
            keep_days=5,
            redacted=False,
            wall=lambda day=day: wall + day * 86_400,  # type: ignore[misc]
        )
        files.write([run_of("x" * 1_000)])
    assert [Path(each).name[9:19] for each in log_files(str(tmp_path))] == [
        f"2026-01-{day:02}" for day in range(10, 4, -1)
    ]
    RequestLogFiles(str(tmp_path), max_bytes=2, keep_days=5, redacted=False, wall=lambda: wall + 10 * 86_400).write(
        [run_of("x" * 1_000)]
    )
    (newest,) = log_files(str(tmp_path))
    assert Path(newest).name == "requests-2026-01-11.jsonl"


async def test_half_a_line_and_what_json_cannot_say_cost_no_other_line(tmp_path: Path) -> None:
    files = RequestLogFiles(str(tmp_path), max_bytes=10_000, keep_days=5, redacted=False, wall=lambda: 0.0)
    first, half_a_pair, last = run_of("one"), run_of("\ud800"), run_of("two")
    files.write([first, half_a_pair])
    append_half_a_line(tmp_path)
    files.write([last])
    found = find(str(tmp_path), last.request.request_id)
    assert isinstance(found, LoggedRequest)
    assert find(str(tmp_path), first.response_id) is not None
    assert find(str(tmp_path), "req_half") is None
    assert find(str(tmp_path), half_a_pair.response_id) is not None


@pytest.mark.parametrize("half", ['{"v": 1, "id": "req_ha', '{"v": 1}\n{"v": 1, "id": "req_ha'])
async def test_a_line_that_broke_off_costs_not_the_next_one(half: str, tmp_path: Path) -> None:
    """The disk was full, or the process was killed, in the middle of a line."""
    files = RequestLogFiles(str(tmp_path), max_bytes=10_000, keep_days=5, redacted=False, wall=lambda: 0.0)
    (tmp_path / "requests-1970-01-01.jsonl").write_text(half)
    runs = [run_of("one"), run_of("two")]
    files.write(runs[:1])
    files.write(runs[1:])
    for run in runs:
        assert find(str(tmp_path), run.request.request_id) is not None
    text = (tmp_path / "requests-1970-01-01.jsonl").read_text()
    assert text.startswith(half + "\n")
    assert text.count("\n") == half.count("\n") + 3


@pytest.mark.parametrize("client_id", ['say "hi"', "a\\b", "Zürich", "\x7f"])
async def test_a_request_is_found_by_any_id_of_its_client(client_id: str, tmp_path: Path) -> None:
    files = RequestLogFiles(str(tmp_path), max_bytes=10_000, keep_days=5, redacted=True, wall=lambda: 0.0)
    run = run_of("one")
    run.request = msgspec.structs.replace(run.request, forwarded={"x-request-id": client_id})
    files.write([run, run_of("two")])
    found = find(str(tmp_path), client_id)
    assert found is not None
    assert found.id == run.request.request_id
    assert find(str(tmp_path), "\ud800") is None
    await trio.lowlevel.checkpoint()


async def test_what_is_not_written_fast_enough_is_left_out(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = RequestLog()
    run = run_of("x")
    run.log.size = 40_000_000
    for _ in range(3):
        waiting.add(run)
    assert (len(waiting.take()), waiting.dropped) == (1, 2)
    assert [each.message for each in caplog.records] == [
        "the request log is not written fast enough; requests missing from it so far: 1"
    ]
    autojump_clock.jump(TELL_SECONDS)
    for _ in range(3):
        waiting.add(run)
    assert [each.message for each in caplog.records[1:]] == [
        "the request log is not written fast enough; requests missing from it so far: 3"
    ]
    await trio.lowlevel.checkpoint()


async def test_what_waits_to_be_written_counts_with_its_prompts() -> None:
    """While the disk hangs, a request is kept with all that it asked, such as pictures."""
    waiting = RequestLog()
    run = run_of("x" * 10_000_000)
    for _ in range(20):
        waiting.add(run)
    assert len(waiting) * 10_000_000 <= QUEUE_BYTES
    assert waiting.dropped == 20 - len(waiting)
    assert len(waiting.take()) > 1
    waiting.add(run)
    assert len(waiting) == 1
    await trio.lowlevel.checkpoint()
