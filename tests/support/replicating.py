"""Random requests about stored responses, each to any of several replicas: is every answer right?

The storm knows what each response says: the model repeats what it was told. What it may be told by a replica follows
from what was told before by any other one: a response that has ended stays as it is, one that was deleted is gone, a
stream goes on after the number that was seen last. Only what was asked while another request changed it may be told
either way.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

import trio

from llm_actors.run import Run
from llm_protocol.requests import ChatRequest
from support.server import HttpClient, Reply, add_text, begin_text, end_text

AT_ONCE = 16
KNOWN = 48
"""The responses that are asked for; older ones are forgotten."""

TERMINAL = ("completed", "incomplete", "cancelled", "failed")


class Replica(Protocol):
    """A daemon, or a server of this process."""

    async def connect(self) -> HttpClient: ...
    async def request(self, method: str, target: str, body: Any = None, **headers: str) -> Reply: ...


async def repeating(run: Run) -> None:
    """The model: it repeats all that was said, word by word. A conversation whose last word is "hang" has no end."""
    assert isinstance(run.request, ChatRequest)
    said = " / ".join(each.text for each in run.request.messages)
    random = Random(said)
    begin_text(run)
    for word in said.split(" "):
        add_text(run, f"{word} ")
        await trio.sleep(random.choice((0, 0.01, 0.05)))
    if said.endswith("hang"):
        await trio.sleep_forever()
    end_text(run)


@dataclass(eq=False)
class Known:
    """A response, as far as anybody was told of it."""

    id: str
    messages: tuple[str, ...]
    """What was said before it, and last to it."""
    final: dict[str, Any] | None = None
    is_cancelled: bool = False
    """Whether somebody has begun to cancel it."""
    is_deleted: bool = False
    is_being_deleted: bool = False
    deletions: int = 0
    """How many have asked to delete it, and have not been answered."""
    seen: dict[int, str] = field(default_factory=lambda: {-1: ""})
    """The text up to each number of its stream that a client has seen."""

    @property
    def said(self) -> str:
        """What was said to it."""
        return self.messages[-1]

    @property
    def text(self) -> str:
        """What its text is in the end, or would be."""
        return " / ".join(self.messages) + " "


@dataclass
class StormTally:
    """What came of it."""

    asked: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class ReplicaStorm:
    """``replicas`` are asked ``count`` times in all."""

    def __init__(self, replicas: Sequence[Replica], count: int, seed: int) -> None:
        self._replicas = replicas
        self._left = count
        self._random = Random(seed)
        self._known: list[Known] = []
        self._made = 0
        self.tally = StormTally()

    async def run(self) -> StormTally:
        """Ask, `AT_ONCE` at a time."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._client)
        return self.tally

    async def _client(self) -> None:
        actions = {
            self._create: 10, self._retrieve: 36, self._resume: 26, self._cancel: 12, self._items: 6,
            self._continue: 6, self._delete: 4,
        }  # fmt: skip
        while self._left > 0:
            self._left -= 1
            action = self._random.choices(list(actions), list(actions.values()))[0]
            if action == self._create or len(self._known) < 4:
                await self._create()
                continue
            known = self._random.choice(self._known)
            self.tally.asked[action.__name__.strip("_")] += 1
            was_final, was_deleted = known.final, known.is_deleted
            with trio.move_on_after(30) as late:
                await action(known, self._random.choice(self._replicas), was_final, was_deleted)  # type: ignore[operator]
            if late.cancelled_caught:
                self._complain(known, action.__name__, "no answer within 30 s")

    def _complain(self, known: Known, action: str, what: object) -> None:
        self.tally.problems.append(f"{action} of {known.id} ({known.said!r}): {what}"[:600])

    # -- what is asked -------------------------------------------------------------------------------------------------

    async def _create(self, before: Known | None = None, replica: Replica | None = None) -> None:
        self.tally.asked["create"] += 1
        self._made += 1
        words = self._random.randint(1, 12)
        said = f"{self._made} " + " ".join(self._random.choice(("one", "two", "drei")) for _ in range(words))
        background = self._random.random() < 0.6
        if background and self._random.random() < 0.4:
            said += " hang"
        body: dict[str, Any] = {"model": "fake-1", "input": said}
        messages: tuple[str, ...] = (said,)
        if background:
            body["background"] = True
        if before is not None:
            body["previous_response_id"] = before.id
            messages = (*before.messages, before.text, said)
        reply = await (replica or self._random.choice(self._replicas)).request("POST", "/v1/responses", body)
        self.tally.statuses[str(reply.status)] += 1
        known = Known(reply.json.get("id", "?"), messages)
        if reply.status != 200:
            if before is None or not (before.is_deleted or before.is_being_deleted):
                self._complain(before or known, "create", reply.body)
            return
        if before is not None and before.final is None:
            self._complain(before, "continue", "it had not ended")
        if reply.json["status"] in TERMINAL:
            self._note(known, "create", reply.json)
        self._known.append(known)
        del self._known[:-KNOWN]

    async def _retrieve(self, known: Known, replica: Replica, final: dict[str, Any] | None, deleted: bool) -> None:
        reply = await replica.request("GET", f"/v1/responses/{known.id}")
        if self._is_gone(known, "retrieve", reply, deleted):
            return
        self._check(known, "retrieve", reply.json, final)

    async def _cancel(self, known: Known, replica: Replica, final: dict[str, Any] | None, deleted: bool) -> None:
        known.is_cancelled = True
        reply = await replica.request("POST", f"/v1/responses/{known.id}/cancel")
        if self._is_gone(known, "cancel", reply, deleted):
            return
        while reply.json["status"] not in TERMINAL:  # it is told after 2 s, ended or not
            self._check(known, "cancel", reply.json, final)
            await trio.sleep(0.2)
            reply = await replica.request("GET", f"/v1/responses/{known.id}")
            if self._is_gone(known, "cancel", reply, deleted):
                return
        self._check(known, "cancel", reply.json, final)

    async def _items(self, known: Known, replica: Replica, final: dict[str, Any] | None, deleted: bool) -> None:
        reply = await replica.request("GET", f"/v1/responses/{known.id}/input_items")
        if self._is_gone(known, "items", reply, deleted):
            return
        text = reply.json["data"][0]["content"][0]["text"]
        if text != known.said:
            self._complain(known, "items", text)

    async def _continue(self, known: Known, replica: Replica, final: dict[str, Any] | None, deleted: bool) -> None:
        if final is not None and final["status"] == "completed" and len(known.text) < 300:
            await self._create(known, replica)

    async def _delete(self, known: Known, replica: Replica, final: dict[str, Any] | None, deleted: bool) -> None:
        known.is_being_deleted = True
        known.deletions += 1
        reply = await replica.request("DELETE", f"/v1/responses/{known.id}")
        known.deletions -= 1
        self.tally.statuses[str(reply.status)] += 1
        # Of several at once any may be the one that deletes it, and the others find nothing.
        is_late = reply.status == 404 and (known.is_deleted or known.deletions > 0)
        if not is_late and (reply.status != 200 or deleted):
            self._complain(known, "delete", reply.body)
        known.is_deleted |= reply.status == 200

    async def _resume(self, known: Known, replica: Replica, final: dict[str, Any] | None, deleted: bool) -> None:
        after = self._random.choice(list(known.seen))
        async with await replica.connect() as client:
            await client.begin("GET", f"/v1/responses/{known.id}?stream=true&starting_after={after}")
            head = await client.head()
            if head.status != 200:
                body = b""
                while (piece := await client.piece()) is not None:
                    body += piece
                self._is_gone(known, "resume", Reply(head.status, head.headers, body), deleted)
                return
            self.tally.statuses["200"] += 1
            if deleted:
                self._complain(known, "resume", "it was deleted")
            # A response that hangs ends when somebody cancels it; until then its readers leave at random.
            enough = 10**9 if not known.said.endswith("hang") else self._random.randint(1, 40)
            with trio.move_on_after(20 if enough > 1_000 else 1):
                await self._read(known, client, after, enough, final)

    async def _read(
        self, known: Known, client: HttpClient, after: int, enough: int, final: dict[str, Any] | None
    ) -> None:
        unread, number, text = b"", after, known.seen[after]
        while (piece := await client.piece()) is not None:
            unread += piece
            *whole, unread = unread.split(b"\n\n")
            for line in (each for event in whole for each in event.split(b"\n") if each.startswith(b"data: {")):
                event = json.loads(line[6:])
                is_again = event["type"] == "response.completed" or event["type"] == "response.incomplete"
                if event["sequence_number"] <= number and not is_again:
                    self._complain(known, "resume", f"number {event['sequence_number']} after {number}")
                number = event["sequence_number"]
                if event["type"] == "response.output_text.delta":
                    text += event["delta"]
                known.seen[number] = text
                if not known.text.startswith(text):
                    self._complain(known, "resume", f"text {text!r}")
                    return
                if event["type"] in ("response.completed", "response.incomplete", "response.failed"):
                    if not (known.is_being_deleted and event["response"]["status"] == "cancelled"):
                        self._check(known, "resume", event["response"], final)
                    return
                enough -= 1
                if enough <= 0:
                    return
        self._complain(known, "resume", f"the stream ended after {number} {unread[:200]!r}")

    # -- what is answered ----------------------------------------------------------------------------------------------

    def _is_gone(self, known: Known, action: str, reply: Reply, deleted: bool) -> bool:
        """Whether it was rightly told that there is no such response, or something else that was complained about."""
        self.tally.statuses[str(reply.status)] += 1
        if reply.status == 404 and (deleted or known.is_being_deleted):
            return True
        if reply.status != 200 or deleted:
            self._complain(known, action, f"{reply.status} {reply.body[:300]!r}, deleted: {deleted}")
            return True
        return False

    def _check(self, known: Known, action: str, body: dict[str, Any], final: dict[str, Any] | None) -> None:
        """Whether this may be told of it. ``final``: what had been told of its end before this was asked."""
        status = body["status"]
        self.tally.statuses[status] += 1
        if body["id"] != known.id:
            self._complain(known, action, f"it is {body['id']}")
        elif status in TERMINAL:
            self._note(known, action, body)
        elif final is not None:
            self._complain(known, action, f"{status} after {final['status']}")

    def _note(self, known: Known, action: str, body: dict[str, Any]) -> None:
        """It has ended so, for everybody."""
        text = "".join(part["text"] for item in body["output"] for part in item.get("content", ()))
        if known.is_being_deleted and not known.is_deleted and known.final is None:
            return  # it may be told as cancelled for that, and is gone
        if known.final is not None and known.final != body:
            if not known.is_being_deleted:
                self._complain(known, action, f"{body['status']} {text!r}, but before {known.final['status']}")
            return
        known.final = body
        right = known.text == text if body["status"] == "completed" else known.text.startswith(text)
        if not right or (body["status"] != "completed" and not known.is_cancelled):
            self._complain(known, action, f"{body['status']} {text!r}")
