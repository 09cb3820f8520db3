"""One row for each failure kind, and no second table beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

from llm_protocol.failures import RULES, AtFault, Failure, FailureKind, Scope, Settlement, Step
from llm_protocol.requests import LLMProvider
from llm_protocol.vendors import VENDORS
from llm_protocol.wires.responses import OpenAIResponsesServer
from llm_runtime.server.run_response import encode_failure

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for name in ("protocol", "actors", "runtime") for path in sorted((ROOT / name).rglob("*.py"))]


def test_each_kind_has_one_row() -> None:
    assert list(RULES) == list(FailureKind)
    tree = ast.parse((ROOT / "protocol/llm_protocol/failures.py").read_text())
    (table,) = [node for node in ast.walk(tree) if isinstance(node, ast.Dict) and len(list(_kinds(node.keys))) > 1]
    assert len(table.keys) == len(FailureKind), "a kind that is written twice"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_other_table_is_keyed_by_failure_kinds(path: Path) -> None:
    """Neither a dict, nor a set or a tuple of kinds to look in, nor a ``match``. Tables that lead to kinds are meant to
    be: what a vendor's word means is its wire's business.
    """
    if path == ROOT / "protocol/llm_protocol/failures.py":
        return
    decides = path.name == "errors.py" and "wires" in path.parts  # it may ask what it has found so far
    lines = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if _is_table(node, pairs=not decides)]
    assert not lines, f"{path.relative_to(ROOT)}, lines {lines}: make it a column of llm_protocol.failures.RULES"


def _is_table(node: ast.AST, *, pairs: bool) -> TypeGuard[ast.expr | ast.stmt]:
    match node:
        case ast.Dict(keys=elements) | ast.Set(elts=elements):
            return len(list(_kinds(elements))) > 1
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return pairs and len(list(_kinds(elements))) > 1
        case ast.Match(cases=cases):
            return any(isinstance(each.pattern, ast.MatchValue) and _is_kind(each.pattern.value) for each in cases)
        case _:
            return False


def _kinds(nodes: list[ast.expr] | list[ast.expr | None]) -> Iterator[ast.expr]:
    return (node for node in nodes if node is not None and _is_kind(node))


def _is_kind(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "FailureKind"


@pytest.mark.parametrize("kind", list(FailureKind))
def test_the_columns_of_a_row_agree(kind: FailureKind) -> None:
    rule = RULES[kind]
    assert rule.billed is (rule.settlement is Settlement.CHARGED)
    if rule.breaks or rule.pause_s or rule.scope is Scope.PROVIDER:
        assert rule.fault is AtFault.PROVIDER, "nobody is kept from a deployment for what others did"
    if rule.needs_operator:
        assert not rule.client_retry
        assert rule.pause_s
        assert rule.advice
    if rule.client_retry:
        assert rule.status in (429, 500, 502, 503, 504), "clients do not repeat any other status"
        assert rule.step is not Step.NEXT or rule.settlement is not Settlement.CHARGED, "it may be billed twice"


def test_a_request_that_a_shutdown_ends_is_billed_and_charged() -> None:
    """The accounts said no and the limiter said yes. Once it was sent, it may have been worked on."""
    assert RULES[FailureKind.SHUTTING_DOWN].settlement is Settlement.CHARGED
    assert Failure(kind=FailureKind.SHUTTING_DOWN, message="").billed


def test_an_error_status_is_not_billed() -> None:
    assert Failure(kind=FailureKind.SERVER_ERROR, message="").billed
    assert not Failure(kind=FailureKind.SERVER_ERROR, message="", upstream_status=500).billed
    assert not Failure(kind=FailureKind.SHUTTING_DOWN, message="", upstream_status=503).billed
    assert Failure(kind=FailureKind.PROTOCOL, message="", upstream_status=200).billed


@pytest.mark.parametrize("wire", [*LLMProvider, "responses"])
@pytest.mark.parametrize("kind", list(FailureKind))
def test_every_wire_tells_the_same_about_asking_again(wire: LLMProvider | str, kind: FailureKind) -> None:
    """OpenAI's clients were told not to come back to a server that shuts down, and Anthropic's not to a full queue."""
    dialect = VENDORS[wire].server() if isinstance(wire, LLMProvider) else OpenAIResponsesServer()
    for partial in (False, True):
        failure = Failure(kind=kind, message="no", partial=partial)
        said = [value for name, value in encode_failure(dialect, failure).headers if name == "x-should-retry"]
        assert said == ([] if RULES[kind].client_retry and not partial else ["false"])


def test_what_a_client_did_wrong() -> None:
    """Not a provider's key or account, which answer with 4xx too, and no limit: those have owners."""
    assert {kind.value for kind, rule in RULES.items() if rule.client_error} == {
        "bad_request", "model_not_found", "context_length", "content_filter", "unsupported", "cancelled", "budget",
    }  # fmt: skip


def test_who_may_ask_again_by_itself() -> None:
    assert {kind.value for kind in FailureKind if RULES[kind].client_retry} == {
        "rate_limited", "overloaded", "server_error", "timeout_connect", "network", "protocol", "truncated",
        "shutting_down", "queue_full", "out_of_resources", "parked", "crashed",
    }  # fmt: skip
