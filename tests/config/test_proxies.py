"""Through whom providers are reached: what they say themselves, else what the environment says, but never loopback."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_protocol.secret import Secret
from llm_runtime.config import Config, ConfigError, discover, parse
from llm_runtime.config.proxies import proxy_of
from llm_runtime.providers import provider_spec

KEY = "k-0123456789abcdef"
PROXY = "http://proxy.test:3128"


def config(lines: str = "", base_url: str = "https://api.test/v1", **environ: str) -> Config:
    source = f'[providers.a]\nkind = "openai_compatible"\nbase_url = "{base_url}"\n{lines}'
    return parse(source.encode(), environ)


def reached(found: Config, name: str = "a") -> str | None:
    proxy = proxy_of(found.providers[name])
    return proxy.url if proxy else None


@pytest.mark.parametrize(
    ("environ", "base_url", "proxy"),
    [
        ({}, "https://api.test/v1", None),
        ({"HTTPS_PROXY": PROXY}, "https://api.test/v1", PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, "https://api.test/v1", PROXY),
        ({"HTTPS_PROXY": PROXY}, "http://api.test/v1", None),
        ({"HTTP_PROXY": PROXY}, "http://api.test/v1", PROXY),
        ({"ALL_PROXY": "socks5h://p:1"}, "https://api.test/v1", "socks5h://p:1"),
        ({"ALL_PROXY": "socks5://p:1", "HTTPS_PROXY": PROXY}, "https://api.test/v1", PROXY),
        ({"HTTPS_PROXY": "proxy.test:3128"}, "https://api.test/v1", PROXY),
        ({"HTTPS_PROXY": " "}, "https://api.test/v1", None),
        ({"ALL_PROXY": PROXY, "HTTP_PROXY": PROXY}, "http://127.0.0.1:8000/v1", None),
        ({"ALL_PROXY": PROXY, "HTTP_PROXY": PROXY}, "http://localhost:8000/v1", None),
        ({"ALL_PROXY": PROXY}, "https://[::1]:8000/v1", None),
    ],
)
def test_the_environment(environ: dict[str, str], base_url: str, proxy: str | None) -> None:
    found = config(base_url=base_url, **environ)
    assert reached(found) == proxy
    assert (f"through the proxy {proxy}" in found.reasons["a"]) == (proxy is not None)


@pytest.mark.parametrize(
    ("exempt", "is_direct"),
    [
        ("*", True),
        ("api.test", True),
        (".test", True),
        ("*.test", True),
        ("test", True),
        ("other, API.test:443", True),
        ("other  api.test", True),
        ("api.test:8443", False),
        ("pi.test", False),
        ("api.test.example", False),
        ("10.0.0.0/8", False),
        ("", False),
    ],
)
@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_no_proxy(exempt: str, is_direct: bool, name: str) -> None:
    assert reached(config(HTTPS_PROXY=PROXY, **{name: exempt})) == (None if is_direct else PROXY)


@pytest.mark.parametrize(("exempt", "is_direct"), [("10.0.0.0/8", True), ("10.1.2.3", True), ("10.1.2.4", False)])
def test_no_proxy_of_addresses(exempt: str, is_direct: bool) -> None:
    found = config(base_url="https://10.1.2.3/v1", HTTPS_PROXY=PROXY, NO_PROXY=exempt)
    assert reached(found) == (None if is_direct else PROXY)


def test_what_a_provider_says_comes_first() -> None:
    environ = {"HTTPS_PROXY": "http://other:1", "NO_PROXY": "*"}
    assert reached(config('proxy = "socks5://p:1"', **environ)) == "socks5://p:1"
    assert reached(config('proxy = "none"', HTTPS_PROXY=PROXY)) is None
    named = config('proxy = "http://p:1"', base_url="http://127.0.0.1:8000/v1")
    assert (reached(named), named.reasons["a"]) == (
        "http://p:1",
        "configured in config.toml, through the proxy http://p:1",
    )


def test_credentials_are_never_shown(tmp_path: Path) -> None:
    found = config('proxy = "http://p:1"\nproxy_auth = "env:P"', P="u:CANARY")
    spec = provider_spec("a", found.providers["a"])
    assert spec.proxy is not None
    assert spec.proxy.credentials == Secret("u:CANARY")
    other = config(HTTPS_PROXY="http://u:CANARY%40@p:1")
    assert other.providers["a"].proxy_auth == Secret("u:CANARY@")
    (tmp_path / "p").write_text("u:CANARY\n")
    file = config(f'proxy = "http://p:1"\nproxy_auth = "file:{tmp_path}/p"')
    for each in (found, other, file):
        assert "CANARY" not in repr(each) + repr(provider_spec("a", each.providers["a"]))


def test_found_providers_have_it_too() -> None:
    found = discover({"GROQ_API_KEY": KEY, "HTTPS_PROXY": PROXY, "NO_PROXY": "api.openai.com", "OPENAI_API_KEY": KEY})
    assert (reached(found, "groq"), reached(found, "openai")) == (PROXY, None)
    assert found.reasons["groq"] == f"GROQ_API_KEY is set, through the proxy {PROXY} (HTTPS_PROXY)"
    bad = discover({"GROQ_API_KEY": KEY, "OPENAI_API_KEY": KEY, "HTTPS_PROXY": "ftp://u:CANARY@p"})
    assert bad.notes == ("HTTPS_PROXY: a proxy's address must start with http://, https:// or socks5://: ignored",)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ('proxy = "ftp://p"', "proxy: a proxy's address must start with"),
        ('proxy = "http://p/path"', "proxy: not an address like http://proxy.example:3128"),
        (
            'proxy = "http://u:CANARY@p:1"',
            "proxy: a password must not be written here: put user:password into a variable",
        ),
        ('proxy_auth = "env:P"', "proxy_auth: needs a proxy"),
        ('proxy = "none"\nproxy_auth = "env:P"', "proxy_auth: needs a proxy"),
        (
            'proxy = "http://p:1"\nproxy_auth = "cmd:x"',
            'proxy_auth: "cmd:COMMAND" is not supported here: write "env:NAME"',
        ),
        ('proxy = "socks5://p:1"\nproxy_auth = "env:E"', "proxy_auth: SOCKS5 needs a user of 1 to 255 bytes"),
        ('proxy = "http://p:1"\nproxy_auth = "u:CANARY"', "proxy_auth: a key must not be written here"),
        ('proxy = "http://p:1"\nproxy_auth = "env:K"', "proxy_auth: the value is not of the form user:password"),
    ],
)
def test_mistakes_are_told_in_words(lines: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(lines, P="u:p", K="CANARY", E=":CANARY")
    assert told in str(caught.value)
    assert "CANARY" not in str(caught.value)


def test_the_local_model_has_none() -> None:
    with pytest.raises(ConfigError, match='proxy: kind "local" does not have this setting'):
        parse(b'[providers.a]\nkind = "local"\nproxy = "http://p:1"', {})
