"""What is read back from where others could have written: the configuration, the ledger's answers, the cache's rows."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

from fuzz.steps import step
from fuzz.target import Target
from fuzz.vendors import check_telling
from llm_actors.cache.entry import pack, replay, unpack
from llm_actors.limiter.limit_state import LimitState
from llm_actors.limiter.shared.wire import Claim, SharedLimit, decode
from llm_protocol.content import Message, Reasoning, Text, ToolCall
from llm_protocol.fold import unfold
from llm_protocol.policy import Limits
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, LLMResponse, Usage
from llm_runtime.config import ConfigError, parse

ROOT = Path(__file__).parents[2]

# ---------------------------------------------------------------- the configuration

CANARY = "sk-CANARY"


def check_config(data: bytes) -> None:
    """A configuration, or one line with a number that holds no key."""
    data = re.sub(rb"(?i)file:", b"env:", data)  # the files of this machine are nobody's seeds
    try:
        found = step(parse, data, {"K": CANARY, "OPENAI_API_KEY": CANARY})
    except ConfigError as exc:
        _check_words(exc, data.count(b"\n") + 1)
    else:
        assert CANARY not in repr(found)


def _check_words(error: ConfigError, lines: int) -> None:
    said = str(error)
    assert CANARY not in said
    assert error.line
    assert error.line <= lines
    assert said.startswith(f"config.toml:{error.line}: ")
    assert len(said.splitlines()) == 1


def config_seeds() -> list[bytes]:
    """The examples of the documentation, their parts, and one with every section."""
    text = "".join((ROOT / "docs" / name).read_text() for name in ("configuration.md", "orchestration.md"))
    examples = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    parts = [part for example in examples for part in re.split(r"\n(?=\[)", example)]
    return [one.replace("env:", "env:K #").encode() for one in (*examples, *parts)] + [one.encode() for one in parts]


CONFIG = Target("config", check_config, config_seeds)

# ---------------------------------------------------------------- the shared ledger


@cache
def _claims() -> list[Claim]:
    account = LimitState(Limits(requests_per_minute=1))
    limits = (SharedLimit("a", account), SharedLimit("b", account))
    return [Claim(1, limits[:1], 5, 1.0), Claim(2, limits, 5, 1.0)]


def check_claims(data: bytes) -> None:
    """Answers, each to its claim, or ``ValueError``."""
    for claims in ((), _claims()[:1], _claims()):
        try:
            _, found = step(decode, data, claims)
        except ValueError:
            continue
        for claim, answer in found:
            assert answer.wait_s >= 0
            assert answer.wait_s < 1e10
            assert 0 <= answer.last < len(claim.limits)


def claim_seeds() -> list[bytes]:
    marks = [["1.5", 1_700_000_000]]
    may, may_not = [True, 0.0, 0, 0.0, marks], [False, 2.5, 0, 1.0, []]
    both = [may, [True, 1.0, 1, 0.0, marks * 2]]
    return [msgspec.msgpack.encode([1_700_000_000.5, answers]) for answers in ([], [may], [may_not], both)]


CLAIMS = Target("claims", check_claims, claim_seeds)

# ---------------------------------------------------------------- the cache's file

REQUEST = ChatRequest(messages=(Message.of("user", "x"),))


def check_entry(data: bytes) -> None:
    """An answer that can be told and kept again, or none."""
    found = step(unpack, data)
    if found is not None:
        answer = replay(found, REQUEST)
        step(check_telling, REQUEST, list(step(unfold, answer)))
        step(pack, answer)


def entry_seeds() -> list[bytes]:
    parts = (Text("x"), Reasoning(text="y", signature="z"), ToolCall(id="1", name="f", arguments="{}"))
    usage = Usage(input_tokens=1, output_tokens=2)
    bare = LLMResponse(request_id="r", response_id="i", provider="p", model="m", usage=usage)
    vectors = msgspec.structs.replace(bare, embeddings=((0.5, 1.0),), finish_reason=FinishReason.STOP)
    answers = bare, msgspec.structs.replace(bare, output=parts, finish_reason=FinishReason.TOOL_CALLS), vectors
    return [packed for packed in map(pack, answers) if packed is not None]


ENTRY = Target("entries", check_entry, entry_seeds)
