"""What is told about checks: lines for people, one object for programs."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_runtime.probes import Check, CheckStatus, Report, refused, report
from llm_runtime.probes.report import DETAIL_CHARACTERS, some

STAMP = "2026-01-31T12:00:00.000Z"
GOOD = Check("configuration", "c.toml", CheckStatus.OK, "1 provider")
DOUBTFUL = Check("prices", "a", CheckStatus.WARNING, "not known for m")
BAD = Check("provider", "somebody", CheckStatus.FAILED, "it is not there", 0.126)


def of(*checks: Check) -> Report:
    return report(checks, id="1", timestamp=STAMP)


def test_the_lines_are_in_columns_with_a_summary_under_them() -> None:
    assert of(GOOD, DOUBTFUL, BAD).lines() == [
        "ok       configuration  c.toml            1 provider",
        "warning  prices         a                 not known for m",
        "failed   provider       somebody  0.13 s  it is not there",
        "3 checks: 1 ok, 1 warning, 1 failed",
    ]


@pytest.mark.parametrize(
    ("checks", "success", "error"),
    [
        ([GOOD], True, None),
        ([GOOD, DOUBTFUL], True, None),
        ([GOOD, BAD, DOUBTFUL], False, "failed: provider somebody"),
        ([BAD, Check("redis", "r", CheckStatus.FAILED, "")], False, "failed: provider somebody, redis r"),
    ],
)
def test_what_failed_and_nothing_else_is_the_error(checks: list[Check], success: bool, error: str | None) -> None:
    found = of(*checks)
    assert (found.success, found.error) == (success, error)


def test_as_json_it_has_the_shape_of_a_providers_result() -> None:
    assert msgspec.json.decode(msgspec.json.encode(of(BAD))) == {
        "success": False,
        "id": "1",
        "timestamp": STAMP,
        "validation": {
            "checks": [
                {
                    "what": "provider",
                    "name": "somebody",
                    "status": "failed",
                    "detail": "it is not there",
                    "seconds": 0.126,
                }
            ]
        },
        "error": "failed: provider somebody",
    }


def test_a_configuration_that_cannot_be_used_is_told_in_the_same_shape() -> None:
    found = refused("c.toml:3: no", "c.toml", id="1", timestamp=STAMP)
    assert (found.success, found.error) == (False, "c.toml:3: no")
    [check] = found.validation.checks
    assert (check.what, check.name, check.status) == ("configuration", "c.toml", CheckStatus.FAILED)


@given(st.text(max_size=3 * DETAIL_CHARACTERS), st.text(max_size=20))
def test_whatever_a_vendor_says_is_one_line_that_steers_no_terminal(said: str, name: str) -> None:
    line, _ = of(Check("provider", name, CheckStatus.FAILED, said)).lines()
    assert line.isprintable()
    assert len(line) <= DETAIL_CHARACTERS + 60


def test_of_many_names_a_few_are_told() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some(list("abcdefgh")) == "a, b, c, d, e and 3 more"
