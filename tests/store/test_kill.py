"""kill -9 of a daemon with a store, in each phase of a response; the next one starts on what there is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio

from support.daemon import vendor
from support.killable import ask, events_until, killable_daemon, text_in
from support.server import open_server


async def until_written(folder: Path, text: str) -> None:
    """Wait until the file has a piece of a log with ``text``."""
    with trio.fail_after(20):
        while True:
            with closing(sqlite3.connect(folder / "state" / "store.sqlite3")) as db:
                pieces = db.execute("SELECT events FROM response_events").fetchall()
            if any(text.encode() in piece for (piece,) in pieces):
                return
            await trio.sleep(0.05)


async def test_what_was_told_as_finished_is_read_the_same_by_the_next_process(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        async with killable_daemon(upstream, tmp_path) as first:
            whole = (await first.request("POST", "/v1/responses", ask("say one two three"))).json
            await first.kill()  # the very moment it was told
        async with killable_daemon(upstream, tmp_path) as second:
            assert (await second.request("GET", f"/v1/responses/{whole['id']}")).json == whole
            items = (await second.request("GET", f"/v1/responses/{whole['id']}/input_items")).json
            assert items["data"][0]["content"][0]["text"] == "say one two three"
            more = ask("say more", previous_response_id=whole["id"])
            assert (await second.request("POST", "/v1/responses", more)).json["status"] == "completed"
            heard = [each.text for each in upstream.engine.requests[-1].messages]  # type: ignore[union-attr]
            assert heard == ["say one two three", "one two three", "say more"]
            assert (await second.request("DELETE", f"/v1/responses/{whole['id']}")).status == 200
            await second.kill()
        async with killable_daemon(upstream, tmp_path) as third:
            assert (await third.request("GET", f"/v1/responses/{whole['id']}")).status == 404


@pytest.mark.parametrize("background", [False, True])
async def test_a_stream_cut_by_a_kill_is_resumed_without_a_gap_or_a_repetition(
    tmp_path: Path, background: bool
) -> None:
    async with open_server(vendor) as upstream:
        async with killable_daemon(upstream, tmp_path) as first:
            async with await first.connect() as client:
                await client.begin(
                    "POST", "/v1/responses", ask("hang one two three four", stream=True, background=background)
                )
                await client.head()
                seen = await events_until(client, "four…")
                await until_written(tmp_path, "…")  # the file is a little behind
                await first.kill()
        response_id, half = seen[0]["response"]["id"], seen[len(seen) // 2]["sequence_number"]
        async with killable_daemon(upstream, tmp_path) as second:
            now = (await second.request("GET", f"/v1/responses/{response_id}")).json
            assert (now["status"], text_in(now)) == ("incomplete", "one two three four…")
            assert now["llm_runtime"]["incomplete_reason"] == "interrupted"
            target = f"/v1/responses/{response_id}?stream=true&starting_after={half}"
            rest = (await second.request("GET", target)).events[:-1]
            numbers = [
                each["sequence_number"] for each in [*seen, *rest] if each["sequence_number"] > half or each in seen
            ]
            assert sorted(set(numbers)) == list(range(numbers[-1] + 1))
            assert min(each["sequence_number"] for each in rest) > half
            texts = [each["delta"] for each in [*seen[: half + 1], *rest] if each["type"].endswith("text.delta")]
            assert "".join(texts) == "one two three four…"
            assert rest[-1]["type"] == "response.incomplete"
            late = (await second.request("GET", f"/v1/responses/{response_id}?stream=true&starting_after=9999")).events
            assert [each["type"] for each in late[:-1]] == ["response.incomplete"]
            assert (await second.request("GET", f"/v1/responses/{response_id}")).json == now


async def test_the_id_of_a_background_response_is_good_from_the_moment_it_is_told(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        async with killable_daemon(upstream, tmp_path) as first:
            begun = (await first.request("POST", "/v1/responses", ask("hang on", background=True))).json
            assert begun["status"] == "in_progress"
            await first.kill()
        async with killable_daemon(upstream, tmp_path) as second:
            now = (await second.request("GET", f"/v1/responses/{begun['id']}")).json
            assert now["status"] == "incomplete"
            assert (await second.request("POST", f"/v1/responses/{begun['id']}/cancel")).json == now


async def test_the_id_of_a_stored_stream_is_good_from_the_moment_it_is_told(tmp_path: Path) -> None:
    async with open_server(vendor) as upstream:
        async with killable_daemon(upstream, tmp_path) as first:
            async with await first.connect() as client:
                await client.begin("POST", "/v1/responses", ask("hang one", stream=True))
                await client.head()
                seen = await events_until(client, "one")
                await first.kill()
        async with killable_daemon(upstream, tmp_path) as second:
            now = await second.request("GET", f"/v1/responses/{seen[0]['response']['id']}")
            assert (now.status, now.json["status"]) == (200, "incomplete")


async def test_two_daemons_share_one_file(tmp_path: Path) -> None:
    """What one has made, the other reads; what one is making is not taken for cut off while it lives."""
    async with (
        open_server(vendor) as upstream,
        killable_daemon(upstream, tmp_path) as one,
        killable_daemon(upstream, tmp_path) as other,
    ):
        whole = (await one.request("POST", "/v1/responses", ask("say hello"))).json
        assert (await other.request("GET", f"/v1/responses/{whole['id']}")).json == whole
        running_there = (await one.request("POST", "/v1/responses", ask("hang on", background=True))).json
        refused = await other.request("GET", f"/v1/responses/{running_there['id']}")
        assert (refused.status, refused.json["error"]["code"]) == (409, "response_elsewhere")
        await one.kill()
        now = (await other.request("GET", f"/v1/responses/{running_there['id']}")).json
        assert now["status"] == "incomplete"
