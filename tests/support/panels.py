"""Several vendors asked together: what they say, and who asks them. The tree is that of `support.attempts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import trio

from llm_actors.orchestrator import accept
from llm_actors.run import Judge, Run
from llm_protocol.content import Message
from llm_protocol.policy import Policy
from llm_protocol.requests import ChatRequest
from llm_protocol.response import Usage
from support.attempts import Asked, World, said, tokens
from support.peer import Call, Step, reply, sse
from support.upstream import JSON, chunk, word


def saying(*pieces: str, late: float = 0.0, gap: float = 0.0, finish: str = "stop", usage: Usage | None = None) -> Step:
    """Answer with these pieces, ``late`` seconds after the question and ``gap`` seconds before each event. The usage
    is the vendor's own of `support.attempts.tokens` unless given.
    """

    async def step(call: Call) -> None:
        if late:
            await trio.sleep(late)
        body = said(call)
        counted = _counted(usage or tokens(body["model"].removeprefix("m-")))
        if body.get("stream"):
            end = chunk(finish=finish), chunk(choices=[], usage=counted), "[DONE]"
            await sse(*map(word, pieces), *end, gap=gap)(call)
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": "".join(pieces)}, "finish_reason": finish}
        whole = {"id": "c1", "model": body["model"], "choices": [choice], "usage": counted}
        await reply(msgspec.json.encode(whole), headers=JSON)(call)

    return step


def _counted(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def everyone(w: World) -> tuple[str, ...]:
    """All candidates, by name."""
    return w.candidates


def bodies(w: World, name: str) -> list[Any]:
    """What the vendor ``name`` was asked."""
    return [msgspec.json.decode(seen.body) for seen in w[name].requests]


def prompts(w: World, name: str) -> list[str]:
    """All that the vendor ``name`` was told, one text for each request."""
    return ["\n".join(message["content"] for message in body["messages"]) for body in bodies(w, name)]


async def start(
    w: World,
    text: str = "What is it?",
    *,
    stream: bool = True,
    judge: Judge | str | None = None,
    context: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    caller: str = "",
    deadline_s: float = 60.0,
    parameters: Any = None,
    model: str = "auto",
    request_id: str = "req_1",
    **policy: Any,
) -> Run:
    """A run that was accepted; ``members`` are all vendors unless the policy says otherwise."""
    if isinstance(judge, str):
        policy["judge"], judge = judge, None
    if model == "auto" and "candidates" not in policy:
        policy.setdefault("members", w.candidates)
    more = {} if parameters is None else {"parameters": parameters}
    request = ChatRequest(
        request_id=request_id,
        model=model,
        messages=(Message.of("user", text),),
        context=dict(context or {}),
        metadata=dict(metadata or {}),
        caller=caller,
        deadline_s=deadline_s,
        policy=Policy(**policy),
        **more,
    )
    run = Run(request, stream=stream, judge=judge)
    await accept(w.tree.orchestrator, run)
    return run


async def ask(w: World, text: str = "What is it?", **how: Any) -> Asked:
    """Ask, see the end, and see that every book is at zero."""
    began = trio.current_time()
    asked = await w.see(await start(w, text, **how), began)
    await w.settled()
    return asked


def members(asked: Asked) -> dict[str, dict[str, Any]]:
    """The decision record's members, by name; of several rounds the last."""
    return {each["member"]: each for each in asked.decision["members"]}


def outcomes(asked: Asked) -> dict[str, str]:
    """What became of each member."""
    return {name: each["outcome"] for name, each in members(asked).items()}


def spent(usages: Sequence[Usage]) -> tuple[int, int]:
    """Input and output tokens together."""
    return sum(usage.input_tokens for usage in usages), sum(usage.output_tokens for usage in usages)
