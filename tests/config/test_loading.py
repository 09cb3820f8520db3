"""A configuration is either exactly what it says or one line that says where it is wrong."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from llm_protocol.errors import LLMClientError
from llm_protocol.model_facts import Capabilities
from llm_protocol.policy import AnswerLimits
from llm_protocol.requests import LLMProvider
from llm_protocol.secret import Secret
from llm_protocol.vendors import VENDORS
from llm_runtime.config import Config, ConfigError, Limits, ProviderCache, Server, Timeouts, load, parse, with_server
from llm_runtime.config.loading import _File
from llm_runtime.config.providers import HTTP2_REQUIREMENT
from llm_runtime.config.redis import REQUIREMENT
from llm_runtime.providers import provider_spec

ENVIRON = {"LLM_RUNTIME_KEY": "sk-CANARY-mine", "PRIMARY_KEY": "sk-CANARY-primary"}

WHOLE = """\
[server]
host = "127.0.0.1"
port = 0

[keys.me]
secret = "env:LLM_RUNTIME_KEY"

[timeouts]
idle = 5

[providers.primary]
kind = "openai_compatible"
base_url = "http://127.0.0.1:9100/v1/"
api_key = "env:PRIMARY_KEY"
models = ["some-model"]
timeouts.total = 9
"""


def refused(source: str, environ: dict[str, str] = ENVIRON) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(source.encode(), environ)
    text = str(caught.value)
    assert "\n" not in text
    assert "CANARY" not in text
    assert text.startswith(f"config.toml:{caught.value.line}: ")
    return caught.value


def test_a_file_becomes_typed_values() -> None:
    config = parse(WHOLE.encode(), ENVIRON)
    assert config.server == Server(port=0)
    assert config.keys["me"].secret == Secret("sk-CANARY-mine")
    primary = config.providers["primary"]
    assert primary.kind == LLMProvider.OPENAI_COMPATIBLE
    assert primary.base_url == "http://127.0.0.1:9100/v1"
    assert primary.api_key == Secret("sk-CANARY-primary")
    assert primary.models == ("some-model",)
    assert primary.limits == Limits()
    assert "CANARY" not in repr(config)


def test_the_size_of_an_answer_is_set_by_provider_and_request_type() -> None:
    config = parse((WHOLE + "max_answer_mb.embedding = 128").encode(), ENVIRON)
    assert config.providers["primary"].max_answer_mb == AnswerLimits(embedding=128.0)
    assert 'max_answer_mb.embeding: unknown key; did you mean "embedding"?' in str(
        refused(WHOLE + "max_answer_mb.embeding = 128")
    )
    for wrong in ("0", "257", '"64"'):
        assert "providers.primary.max_answer_mb.chat" in str(refused(f"{WHOLE}max_answer_mb.chat = {wrong}"))


def test_a_providers_timeouts_are_laid_over_the_general_ones() -> None:
    config = parse(WHOLE.encode(), ENVIRON)
    assert config.timeouts == Timeouts(idle=5.0)
    assert config.providers["primary"].timeouts == Timeouts(idle=5.0, total=9.0)


def test_a_provider_says_of_the_cache_only_what_is_its_own() -> None:
    config = parse((WHOLE + "cache.ttl_s = 5\n[cache]\nenabled = true").encode(), ENVIRON)
    assert config.providers["primary"].cache == ProviderCache(ttl_s=5.0)
    assert config.cached == {"primary"}
    for key in ("memory_mb = 1", 'path = "x.db"', "file_mb = 9"):
        error = refused(f"{WHOLE}cache.{key}")
        assert (error.line, error.path[:3]) == (17, ("providers", "primary", "cache"))
        assert error.message == "all providers share one cache: set it in [cache]"
    assert 'cache.ttl: unknown key; did you mean "ttl_s"?' in str(refused(WHOLE + "cache.ttl = 5"))


def test_what_a_providers_models_take_is_said_by_pattern() -> None:
    config = parse(
        f"""{WHOLE}
[providers.primary.capabilities."some-*"]
efforts = ["none", "low"]
context_window = 9
[providers.primary.capabilities."*"]
vision = false
""".encode(),
        ENVIRON,
    )
    primary = config.providers["primary"]
    assert primary.capabilities == {
        "some-*": Capabilities(efforts=("none", "low"), context_window=9),
        "*": Capabilities(vision=False),
    }
    rule = provider_spec("primary", primary).dialect.rules.of("some-model")
    assert (rule.efforts, rule.context_window, rule.vision) == (("none", "low"), 9, False)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("visoin = true", 'capabilities.a*.visoin: unknown key; did you mean "vision"?'),
        ("context_window = 0", "capabilities.a*.context_window: expected a whole number of at least 1"),
        ('efforts = ["high", "low"]', "capabilities.a*: efforts must be in the order none, minimal, low"),
        ('efforts = ["hihg"]', "capabilities.a*.efforts[0]: not one of"),
        ('sampling = "sometimes"', "capabilities.a*.sampling: not one of"),
        ('thinking_off = "disable"', 'did you mean "disabled"?'),
    ],
)
def test_a_mistake_about_what_models_take_is_one_line(entry: str, said: str) -> None:
    error = refused(f'{WHOLE}[providers.primary.capabilities."a*"]\n{entry}')
    assert said in str(error)
    assert error.line in (17, 18)


def test_capabilities_are_tables_by_model() -> None:
    error = refused(f"{WHOLE}capabilities = true")
    assert 'expected tables [providers.NAME.capabilities."MODEL"], where MODEL is a name or a glob' in str(error)


@pytest.mark.parametrize(
    ("general", "own", "cached"), [("true", "false", False), ("false", "true", True), ("true", "true", True)]
)
def test_whose_answers_are_cached(general: str, own: str, cached: bool) -> None:
    config = parse(f"{WHOLE}cache.enabled = {own}\n[cache]\nenabled = {general}".encode(), ENVIRON)
    assert ("primary" in config.cached) is cached
    disabled = parse(f"{WHOLE}cache.enabled = {own}\nenabled = false".encode(), ENVIRON)
    assert not disabled.cached


def test_an_empty_file_is_a_config_with_discovered_providers() -> None:
    config = parse(b"", {"OPENAI_API_KEY": "k"}, local=True)
    assert config.server == Server()
    assert list(config.providers) == ["openai", "local"]
    assert config.reasons["openai"] == "OPENAI_API_KEY is set"


def test_a_config_error_is_an_llm_client_error() -> None:
    assert issubclass(ConfigError, LLMClientError)


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("port = 0", "prot = 0", 3, 'server.prot: unknown key; did you mean "port"?'),
        ("[keys.me]", "[key.me]", 5, 'key: unknown key; did you mean "keys"?'),
        ("base_url", "bsae_url", 13, 'providers.primary.bsae_url: unknown key; did you mean "base_url"?'),
        ("timeouts.total", "timeouts.totl", 16, 'providers.primary.timeouts.totl: unknown key; did you mean "total"?'),
        ("port = 0", "zzz = 0", 3, "server.zzz: unknown key"),
        ("port = 0", "port = 70000", 3, "server.port: expected a whole number of at most 65535"),
        ("port = 0", 'port = "0"', 3, "server.port: expected a whole number, got text"),
        ("idle = 5", "idle = 0", 9, "timeouts.idle: expected a number greater than 0"),
        ("total = 9", "total = nan", 16, "providers.primary.timeouts.total: expected a number greater than 0"),
        ("total = 9", "total = inf", 16, "providers.primary.timeouts.total: expected a number of at most 86400"),
        ('["some-model"]', '[\n  "a",\n  3,\n]', 15, "providers.primary.models[1]: expected text, got a whole number"),
        ("idle = 5", 'idle = "5"', 9, "timeouts.idle: expected a number, got text"),
        ('"some-model"', '""', 15, "providers.primary.models[0]: expected text with a length of at least 1"),
        (
            '"openai_compatible"',
            '"zzz"',
            12,
            'kind: there is no kind "zzz", only openai, anthropic, gemini, cohere, cerebras, openai_compatible, ',
        ),
        ('kind = "openai_compatible"\n', "", 11, "providers.primary: kind is missing"),
        ('base_url = "http://127.0.0.1:9100/v1/"\n', "", 11, 'kind "openai_compatible" needs a base_url'),
        ("openai_compatible", "opena", 12, 'did you mean "openai"?'),
        ("[providers.primary]", '[providers."a/b"]', 11, "providers.a/b: a name is 1 to 64"),
        ("idle = 5", "idle = 5 5", 9, "not TOML: Expected newline or end of document"),
        ("port = 0", "port = 0\nport = 1", 4, "not TOML: Cannot overwrite a value"),
        ("port = 0", "port = " + "9" * 5000, 17, "not TOML: a number is too long"),
        ("port = 0", "port = " + "[" * 5000, 1, "the configuration is nested too deeply"),
        ("[timeouts]", "[[timeouts]]", 8, "timeouts: expected a table"),
        ("[server]", "providers = 3\n[server]", 12, "not TOML"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_what_would_be_right(old: str, new: str, line: int, said: str) -> None:
    """Every error names the line."""
    error = refused(WHOLE.replace(old, new, 1))
    assert said in str(error)
    assert error.line == line


def test_a_vendor_without_a_key_says_what_to_write() -> None:
    error = refused('[providers.x]\nkind = "openai"')
    assert str(error) == 'config.toml:1: providers.x: kind "openai" needs api_key, for example "env:OPENAI_API_KEY"'


def test_a_vendors_address_is_known() -> None:
    config = parse(b'[providers.x]\nkind = "openai"\napi_key = "env:PRIMARY_KEY"', ENVIRON)
    assert config.providers["x"].base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/v1",
        "host/v1",
        "https://",
        "https://u:p@host/v1",
        "https://host/v1?key=1",
        "https://host/v1#a",
        "https://host:99999/v1",
        "https://[::1/v1",
        "https://host/a b",
        "https://host/\\r\\nX: y",
        "https://a,b/v1",
        "https://api.${REGION}.example.com/v1",
        "http://[fe80::1%eth0]:8000/v1",
    ],
)
def test_an_address_that_is_not_one_is_refused(url: str) -> None:
    error = refused(f'[providers.x]\nkind = "openai_compatible"\nbase_url = "{url}"')
    assert error.path == ("providers", "x", "base_url")
    assert error.line == 3


@pytest.mark.parametrize(
    ("kind", "url", "version"),
    [
        ("gemini", "https://generativelanguage.googleapis.com/v1beta/", "/v1beta"),
        ("anthropic", "https://h/proxy/v1", "/v1"),
        ("cohere", "https://api.cohere.com/v2", "/v2"),
    ],
)
def test_an_address_names_no_version_where_the_paths_have_it(kind: str, url: str, version: str) -> None:
    """Otherwise every request would go to ``/v1beta/v1beta/…`` and be answered with a 404 that explains nothing."""
    error = refused(f'[providers.x]\nkind = "{kind}"\nbase_url = "{url}"\napi_key = "env:PRIMARY_KEY"')
    assert error.path == ("providers", "x", "base_url")
    assert f'leave off "{version}"' in str(error)


def test_a_disabled_provider_needs_no_key_but_may_not_hold_one() -> None:
    source = '[providers.x]\nkind = "openai"\nenabled = false\napi_key = "%s"'
    config = parse((source % "env:NOT_SET").encode(), {})
    assert config.providers["x"].api_key is None
    assert config.enabled == {}
    assert "a key must not be written here" in str(refused(source % "sk-CANARY"))


def test_the_local_model_has_no_address() -> None:
    config = parse(b'[providers.local]\nkind = "local"', {})
    local = config.providers["local"]
    assert (local.base_url, local.models, local.limits) == (None, ("smollm2",), Limits())
    assert "does not have this setting" in str(
        refused('[providers.l]\nkind = "local"\nbase_url = "http://127.0.0.1:1"')
    )


def test_the_local_model_is_the_only_one_of_its_kind() -> None:
    assert parse(b'[providers.l]\nkind = "local"\nmodels = ["smollm2"]', {}).providers["l"].models == ("smollm2",)
    error = refused('[providers.l]\nkind = "local"\nmodels = ["smollm2", "m"]')
    assert error.path == ("providers", "l", "models")
    assert 'omit models, or write ["smollm2"]' in str(error)


@pytest.mark.parametrize("found", ["discovered", "configured"])
@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ('candidates = ["opnai/m"]', "candidates"),
        ('strategy = "panel"\nmembers = ["opnai/m", "openai/n"]', "members"),
        ('strategy = "panel"\nsynthesiser = "opnai/m"', "synthesiser"),
        ('strategy = "best_of"\njudge = "opnai/m"', "judge"),
    ],
)
def test_a_route_names_providers_that_there_are(found: str, entry: str, key: str) -> None:
    """Whether they are in the file or were found."""
    section = '[providers.openai]\nkind = "openai"\napi_key = "env:PRIMARY_KEY"\n' if found == "configured" else ""
    environ = ENVIRON | {"OPENAI_API_KEY": "sk-CANARY"}
    error = refused(f"{section}[routes.r]\n{entry}", environ)
    assert error.path == ("routes", "r", key)
    assert error.message == 'no configured provider for "opnai/m"; did you mean "openai"?'
    right = parse(f"{section}[routes.r]\n{entry}".replace("opnai", "openai").encode(), environ)
    assert list(right.providers) == ["openai"]


def test_limits_can_be_set() -> None:
    config = parse(b'[providers.local]\nkind = "local"\nlimits.max_concurrency = 2', {})
    assert config.providers["local"].limits.max_concurrency == 2


def test_a_cache_in_redis_needs_one_and_no_file() -> None:
    redis = '[redis]\nurl = "redis://localhost"\n'
    assert parse(f"[cache]\nredis = true\n{redis}".encode(), {}).cache.redis
    with pytest.raises(ConfigError, match=r"config.toml:2: cache.redis: needs the section \[redis\]"):
        parse(b"[cache]\nredis = true\n", {})
    with pytest.raises(ConfigError, match=r"cache\.redis: with redis = true the cache has no file: omit path"):
        parse(f'[cache]\nredis = true\npath = "x"\n{redis}'.encode(), {})


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("redis://cache.internal:6380/2", "cache.internal:6380"),
        ("rediss://someone@[::1]/", "[::1]"),
        ("unix:///run/redis.sock", "/run/redis.sock"),
        ("env:REDIS_URL", "10.0.0.7:6379"),
    ],
)
def test_redis_is_named_without_what_is_secret(written: str, name: str) -> None:
    found = parse(f'[redis]\nurl = "{written}"\n'.encode(), {"REDIS_URL": "redis://me:CANARY@10.0.0.7:6379/0"}).redis
    assert found is not None
    assert found.name == name
    assert "CANARY" not in repr(found)


@pytest.mark.parametrize(
    ("section", "line", "said"),
    [
        ("prefix = 'x'", 1, "redis: url is missing"),
        (
            "url = 'redis://:sk-CANARY@h/0'",
            2,
            'redis.url: a password must not be written here: write "env:NAME" (an environment variable) or '
            '"file:PATH"; the variable or file must contain the whole address',
        ),
        ("url = 'env:NONE'", 2, "redis.url: the environment variable NONE is not set"),
        (
            "url = 'env:LLM_RUNTIME_KEY'",
            2,
            'redis.url: not an address of a Redis server: expected "redis://HOST:PORT/DB"',
        ),
        ("url = 'http://h/'", 2, "redis.url: not an address of a Redis server"),
        ("url = 'redis://'", 2, "redis.url: not an address of a Redis server"),
        ("url = 'redis://h:99999'", 2, "redis.url: not an address of a Redis server"),
        ("url = 'localhost:6379'", 2, "redis.url: not an address of a Redis server"),
        ("url = 'redis://h'\nprefix = '{x}'", 3, "redis.prefix"),
        ("url = 'redis://h'\ntimeout_s = 0", 3, "redis.timeout_s"),
        ("url = 'redis://h'\nport = 1", 3, "redis.port: unknown key"),
    ],
)
def test_a_mistake_about_redis_is_one_line(section: str, line: int, said: str) -> None:
    text = str(refused(f"[redis]\n{section}\n"))
    assert f":{line}: " in text
    assert said in text


def test_redis_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_runtime.config.redis.find_spec", lambda _: None)
    assert "pip install 'coredis>=" in str(refused('[redis]\nurl = "redis://h"\n'))


def test_the_packages_to_install_are_the_extras_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["redis"] == [REQUIREMENT]
    assert HTTP2_REQUIREMENT in project["optional-dependencies"]["http2"]  # the rest comes with it


def test_a_key_in_clear_to_another_machine_is_noted() -> None:
    source = '[providers.x]\nkind = "openai_compatible"\nbase_url = "http://10.0.0.1/v1"\napi_key = "env:PRIMARY_KEY"'
    [note] = parse(source.encode(), ENVIRON).notes
    assert note == "providers.x.base_url is http, so its key is sent unencrypted"


def test_a_ca_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    source = '[providers.x]\nkind = "openai_compatible"\nbase_url = "https://h/v1"\nca_file = "%s"'
    file = tmp_path / "c.toml"
    file.write_text(source % "ca.pem")
    assert load(file, {}).providers["x"].ca_file == str(tmp_path / "ca.pem")
    for missing in "nope.pem", "~nobody-x/ca.pem":
        file.write_text(source % missing)
        with pytest.raises(ConfigError) as caught:
            load(file, {})
        assert str(caught.value).startswith(f"{file}:4: providers.x.ca_file: cannot read '{missing}': No such file")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\n\xff", "config.toml:2: the configuration is not UTF-8"),
        (b"#" * (1024 * 1024 + 1), "config.toml:1: the configuration is larger than 1048576 bytes"),
    ],
)
def test_what_is_not_text_is_refused(content: bytes, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(content, {})
    assert str(caught.value) == said


@pytest.mark.parametrize("mark", ["\\n", "\\u001b", "\\u2028"])
def test_a_name_that_is_quoted_does_not_break_the_line(mark: str) -> None:
    """Nor does it reach the terminal as a command to it."""
    provider = '[providers.x]\nkind = "openai"\napi_key = "env:PRIMARY_KEY"\n'
    source = f'{provider}[routes.r]\ncandidates = ["y/{mark}z"]'
    with pytest.raises(ConfigError) as caught:
        parse(source.encode(), ENVIRON)
    shown = mark.replace("u00", "x")
    assert (
        str(caught.value)
        == f'config.toml:5: routes.r.candidates: no configured provider for "y/{shown}z"; known providers: x'
    )


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "no.toml", {})
    assert str(caught.value) == f"{tmp_path}/no.toml: cannot read the configuration: No such file or directory"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost"])
def test_loopback_needs_nothing(host: str) -> None:
    assert with_server(Config(), host=host).server.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "my-machine.lan", "::ffff:127.0.0.1"])
def test_beyond_loopback_needs_a_key_and_an_answer_about_tls(host: str) -> None:
    """Refused without a key, refused without TLS, unless the latter was said to be meant."""
    config = parse(WHOLE.encode(), ENVIRON)
    with pytest.raises(ConfigError, match="reachable from other machines: add a key"):
        with_server(Config(), host=host, insecure_no_tls=True)
    with pytest.raises(ConfigError, match="has no TLS"):
        with_server(config, host=host)
    assert with_server(config, host=host, insecure_no_tls=True).server.insecure_no_tls
    assert refused(WHOLE.replace('"127.0.0.1"', f'"{host}"', 1)).line == 2


@pytest.mark.parametrize("host", ["", "a b", "1.2.3", "256.1.1.1", "http://x", "-x", "x\n"])
def test_what_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ConfigError, match="is not an address or host name"):
        with_server(Config(), host=host)


def test_a_config_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().server = Server()  # type: ignore[misc]
    assert msgspec.structs.replace(Config(), server=Server(port=1)).server.port == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('trusted_proxies = ["10.0.0.0/8", "proxy.example"]', "'proxy.example' is not an address or network"),
        ("max_body_mb = 300", "max_body_mb must not be more than max_body_total_mb"),
        ("max_connections = 0", "server.max_connections"),
        ("max_body_s = 0", "server.max_body_s"),
    ],
)
def test_limits_that_make_no_sense_are_told_in_one_line(source: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"[server]\n{source}\n".encode(), {})
    assert said in str(caught.value)
    assert str(caught.value).startswith("config.toml:")
    assert "\n" not in str(caught.value)


ALL_WRONG = """\
[server]
prot = 1
drain_s = -1
port = "x"

[providers.a]
kind = "opnai"
api_key = "env:NONE"

[providers.b]
kind = "groq"
api_kye = "env:PRIMARY_KEY"
timeouts.idle = -1
timeouts.totl = 1

[keys."a b"]

[keys.c]

[routes.r]
models = ["d/e"]

[prices."f/g"]
input = 1

[unknown]
x = 1
"""


def test_all_mistakes_of_a_file_are_told_in_one_run() -> None:
    error = refused(ALL_WRONG)
    assert [str(each).removeprefix("config.toml:").split("; ")[0] for each in error.all] == [
        "2: server.prot: unknown key",
        "3: server.drain_s: expected a number of at least 0",
        "4: server.port: expected a whole number, got text",
        '7: providers.a.kind: there is no kind "opnai", only ' + ", ".join(VENDORS),
        "8: providers.a.api_key: the environment variable NONE is not set",
        "12: providers.b.api_kye: unknown key",
        "14: providers.b.timeouts.totl: unknown key",
        "16: keys.a b: a name is 1 to 64 letters, digits, - _ or ., the first a letter or digit",
        "18: keys.c: secret is missing",
        "21: routes.r.models: unknown key",
        '23: prices.f/g: there is no provider "f"',
        "26: unknown: unknown key",
    ]


def test_what_there_is_is_listed_for_what_is_not_like_it() -> None:
    assert str(refused("[qqq]")).endswith("unknown key; known keys: " + ", ".join(_File.__struct_fields__))
    unlike = refused('[providers.a]\nkind = "groq"\napi_key = "env:PRIMARY_KEY"\nqqq = 1')
    assert "unknown key; known keys: kind, enabled, base_url, api_key" in str(unlike)
    route = '[providers.a]\nkind = "ollama"\n[routes.r]\ncandidates = ["qqq/m"]'
    assert str(refused(route)).endswith('no configured provider for "qqq/m"; known providers: a')


def test_a_byte_order_mark_is_no_mistake() -> None:
    assert parse(b"\xef\xbb\xbf" + WHOLE.encode(), ENVIRON) == parse(WHOLE.encode(), ENVIRON)


@pytest.mark.parametrize(
    ("limited", "what"),
    [
        ("limits = { max_concurrency = 3 }", "providers.p.limits"),
        ('[keys.a]\nsecret = "env:A"\nlimits = { requests_per_minute = 3 }', "keys.a.limits"),
        ("[budgets.b]\nusd = 3", "budgets.b"),
    ],
)
def test_several_workers_keep_limits_over_redis_only(limited: str, what: str) -> None:
    source = f'[providers.p]\nkind = "openai"\napi_key = "env:A"\n{limited}\n'
    environ = {"A": "k-0123456789abcdef"}
    with pytest.raises(ConfigError) as caught:
        parse(f"{source}[server]\nworkers = 2\n".encode(), environ)
    line = len(source.splitlines()) + 2
    message = f"several workers with {what} need [redis], through which they share the limit"
    assert str(caught.value) == f"config.toml:{line}: server.workers: {message}"
    config = parse(source.encode(), environ)
    with pytest.raises(ConfigError, match=r"need \[redis\]"):
        with_server(config, workers=2)
    assert with_server(config, workers=1).server.workers == 1
    redis = '[redis]\nurl = "redis://127.0.0.1:6379/0"\n'
    assert parse(f"{source}{redis}[server]\nworkers = 2\n".encode(), environ).server.workers == 2


def test_every_mistake_of_a_route_and_of_a_key_is_told() -> None:
    text = (
        b'[providers.p]\nkind = "ollama"\nmodels = ["m"]\n'
        b'[routes.r]\nstrategy = "falback"\ncandidates = ["x/m", "p/m", "y/m"]\n'
        b'[keys.k]\nsecret = "env:K"\nmodels = ["a/m", "p/m", "b/m"]\n'
    )
    with pytest.raises(ConfigError) as caught:
        parse(text, {"K": "k-0123456789abcdef"}, file="c.toml")
    told = [(each.line, ".".join(each.path), each.message.partition(";")[0]) for each in caught.value.all]
    assert [each[:2] for each in told] == [
        (5, "routes.r.strategy"),
        (6, "routes.r.candidates"),
        (6, "routes.r.candidates"),
        (9, "keys.k.models"),
        (9, "keys.k.models"),
    ]
    assert [each[2] for each in told[1:]] == [f'no configured provider for "{name}/m"' for name in "xyab"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[server]\n[server]\n", "not TOML: Cannot declare server twice"),
        ("[server.tls]\n[server.tls]\n", "not TOML: Cannot declare server.tls twice"),
    ],
)
def test_a_table_that_is_there_twice_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text.encode(), {})
    assert caught.value.message == message
