"""Whatever a configuration file holds, the loader answers with a Config or one line with a number."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from llm_runtime.config import Config, ConfigError, parse

NAMES = st.sampled_from(
    [
        "server",
        "host",
        "port",
        "keys",
        "secret",
        "providers",
        "kind",
        "base_url",
        "api_key",
        "models",
        "enabled",
        "limits",
        "max_concurrency",
        "timeouts",
        "idle",
        "total",
        "drain_s",
        "ca_file",
        "allowed_hosts",
        "cache",
        "ttl_s",
        "expires",
        "x",
        '"a\\nb"',
    ]
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map(".".join)
VALUES = st.sampled_from(
    [
        '"env:K"',
        '"file:/"',
        '"openai"',
        '"local"',
        '"http://h"',
        '"::1"',
        '"0.0.0.0"',
        '"\\u0000"',
        '""',
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "true",
        "[]",
        "{}",
        "[1]",
        '["a"]',
        "{a=1}",
        "1979-05-27",
        "1979-05-27T07:32:00",
        "1979-05-27T07:32:00Z",
        '["*", "auto"]',
        "''\n''",
        "[[[",
        "999999999999999999999999999",
    ]
)
LINES = st.one_of(
    PATHS.map("[{}]".format),
    PATHS.map("[[{}]]".format),
    st.builds("{} = {}".format, PATHS, VALUES),
    st.text(max_size=12),
)


def outcome(content: bytes) -> Config | ConfigError:
    try:
        return parse(content, {"K": "sk-CANARY"})
    except ConfigError as exc:
        return exc


def check(content: bytes) -> None:
    result = outcome(content)
    assert "CANARY" not in repr(result)
    if isinstance(result, ConfigError):
        assert result.line
        assert str(result).startswith(f"config.toml:{result.line}: ")
        assert result.line <= content.count(b"\n") + 1
        assert len(str(result).splitlines()) == 1


@given(st.lists(LINES, max_size=8).map("\n".join))
def test_lines_that_look_like_a_configuration(source: str) -> None:
    with contextlib.suppress(UnicodeEncodeError):
        check(source.encode())


@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    check(content)
