"""One row for each vendor, and nothing else that branches on vendors."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from llm_protocol.requests import LLMProvider, RequestType
from llm_protocol.vendor import KIND, FakeTraits, UnknownVendorError, Vendor, VendorRoute, VendorTable
from llm_protocol.vendor_profile import COMPATIBLE, LimitHeaders, VendorProfile
from llm_protocol.vendors import VENDORS

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for name in ("protocol", "actors", "runtime") for path in sorted((ROOT / name).rglob("*.py"))]
FACTS = {"model_table.py", "lifecycle.py", "rows.py", "table.py"}
"""Tables of facts about models and parameters, by the kind of their vendor."""
WIRES = {"run_response.py", "errors.py", "requested.py"}
"""Tables by wire or by `ErrorShape`, some of which are called like the vendor they come from."""

MADEUP = Vendor(kind="madeup", title="Made-up", base_url="https://madeup.example/v1", key_variables=("MADEUP_API_KEY",))


def lacking(*names: str) -> VendorProfile:
    return replace(COMPATIBLE, target=replace(COMPATIBLE.target, lacks=frozenset(names)))


def test_the_requested_names_are_rows() -> None:
    assert set(LLMProvider) <= set(VENDORS)


@pytest.mark.parametrize("kind", list(VENDORS))
def test_a_row_is_whole(kind: str) -> None:
    vendor = VENDORS[kind]
    assert vendor.kind == kind
    assert KIND.fullmatch(kind)
    assert vendor.client().name == vendor.server().name
    assert vendor.client().request_types
    assert vendor.base_url is not None or vendor.url_variables or vendor.generic or vendor.local
    assert vendor.base_url is None or not vendor.wire.versioned_paths or not re.search(r"/v\d\w*$", vendor.base_url)
    assert all(variable.isupper() and variable.endswith("_API_KEY") for variable in vendor.key_variables)
    for patterns in vendor.default_models.values():
        assert all(re.compile(pattern) for pattern in patterns)


def test_no_variable_is_two_vendors() -> None:
    variables = [each for vendor in VENDORS.values() for each in vendor.key_variables]
    assert len(set(variables)) == len(variables)


def test_a_vendor_needs_no_more_than_a_name_and_an_address() -> None:
    dialect = MADEUP.client()
    assert RequestType.CHAT in dialect.request_types
    assert dict(dialect.auth_headers("k")) == {"authorization": "Bearer k"}
    assert (MADEUP.facts_key, MADEUP.key_variable) == ("madeup", "MADEUP_API_KEY")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"kind": "Made Up"}, "kind 'Made Up'"),
        ({"kind": ""}, "kind ''"),
        ({"error_shape": "xml"}, "error_shape 'xml': not one of openai, anthropic, google, cohere, flat"),
        ({"routes": (VendorRoute("GET", "("),)}, "missing )"),
        ({"profile": lacking("sead")}, "target.lacks: 'sead' is not allowed here; did you mean \"seed\"?"),
        ({"profile": lacking("tools: custom")}, "target.lacks: 'tools: custom' is not allowed here"),
        (
            {"profile": replace(COMPATIBLE, limit_headers=LimitHeaders(requests_limit="X-Limit"))},
            "limit_headers: 'X-Limit' must be in lower case",
        ),
    ],
)
def test_what_cannot_be_a_vendor_is_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Vendor(**{"kind": "madeup", "title": "Made-up", **wrong})  # type: ignore[arg-type]


def test_an_unknown_kind_is_told_what_there_is() -> None:
    with pytest.raises(UnknownVendorError) as caught:
        VENDORS["opnai"]
    assert str(caught.value) == f'there is no kind "opnai", only {", ".join(VENDORS)}; did you mean "openai"?'
    assert "opnai" not in VENDORS
    assert VENDORS.get("opnai") is None


def test_a_table_grows_by_making_another_one() -> None:
    more = VENDORS.plus([MADEUP])
    assert list(more) == [*VENDORS, "madeup"]
    assert "madeup" not in VENDORS
    with pytest.raises(ValueError, match='two vendors of kind "openai"'):
        VENDORS.plus([Vendor(kind="openai", title="Other")])
    assert VendorTable([MADEUP, MADEUP])["madeup"] is MADEUP


def test_traits_tell_clients_apart() -> None:
    """A header, path or query that two vendors' clients send tells nothing."""
    said: list[object] = []
    for vendor in VENDORS.values():
        traits: FakeTraits = vendor.fake
        said += [*traits.client_headers, *traits.client_paths, *traits.client_query, *traits.client_values]
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_else_branches_on_vendors(path: Path) -> None:
    """No comparison with a kind, no `match`, no table by kinds. What differs between vendors is a column."""
    if path.name == "vendors.py" and path.parent.name == "llm_protocol":
        return
    lines = list(_branches(ast.parse(path.read_text()), tables=path.name not in FACTS | WIRES))
    assert not lines, f"{path.relative_to(ROOT)}, lines {lines}: make it a column of llm_protocol.vendor.Vendor"


def _branches(tree: ast.AST, *, tables: bool) -> Iterator[int]:
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left=left, comparators=others):
                compared = [inner for each in (left, *others) for inner in _members(each)]
                names_kind = any(isinstance(each, ast.Attribute) and each.attr == "kind" for each in compared)
                if any(_is_constant(each) or (names_kind and _is_word(each)) for each in compared):
                    yield node.lineno
            case ast.MatchValue(value=value) if _is_constant(value):
                yield node.lineno
            case ast.Dict(keys=keys) if tables and _kinds(keys) > 1:
                yield node.lineno
            case ast.Set(elts=members) | ast.Tuple(elts=members) | ast.List(elts=members):
                if sum(map(_is_constant, members)) > 1:
                    yield node.lineno


def _members(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.Tuple | ast.List | ast.Set) else [node]


def _kinds(keys: list[ast.expr | None]) -> int:
    return sum(_is_constant(key) or _is_word(key) for key in keys if key is not None)


def _is_constant(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "LLMProvider"


def _is_word(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value in VENDORS
