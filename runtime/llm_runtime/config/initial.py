"""A first configuration file: what was found in the environment, and comments with further options."""

from __future__ import annotations

import json
from collections.abc import Iterator

from llm_runtime.config.model import Config

_SERVER = """\
# The configuration of llm-runtime. All keys: docs/configuration.md. Next steps:
#   llm-runtime check --config FILE
#   llm-runtime serve --config FILE

[server]
host = "127.0.0.1"                # any other address needs a key ([keys.NAME]) and TLS
port = 8080
# drain_s = 30                    # how long responses in progress may continue after SIGTERM
# ready_delay_s = 5               # behind a load balancer: how long /readyz says 503 before

# [server.tls]
# certificate = "fullchain.pem"
# key = "privkey.pem"

# [keys.app]                      # a caller; without one, everyone on this machine may send requests
# secret = "env:APP_KEY"          # openssl rand -hex 32
# models = ["openai/*"]           # what it may use; omitted: all models
# [keys.app.limits]
# requests_per_minute = 600
# [keys.operator]
# secret = "env:OPERATOR_KEY"
# admin = true                    # may read /metrics and reload the configuration
"""

_NOBODY = """
# No key of a vendor was found in the environment. Add a provider, for example:
# [providers.openai]
# kind = "openai"
# api_key = "env:OPENAI_API_KEY"
# [providers.mine]
# kind = "openai_compatible"
# base_url = "http://127.0.0.1:8000/v1"
"""

_REST = """
# [routes.careful]                # clients use this name in place of a model
# candidates = ["openai/some-model", "anthropic/some-model"]
# strategy = "fallback"

# [cache]
# enabled = true
"""


def initial_file(found: Config, variables: dict[str, str]) -> str:
    """Return the text of a file for ``found``. ``variables`` maps each provider to the environment variable with its
    key.
    """
    return "".join((_SERVER, *_providers(found, variables), _REST))


def _providers(found: Config, variables: dict[str, str]) -> Iterator[str]:
    if not found.providers:
        yield _NOBODY
    for name, each in found.providers.items():
        lines = [f"\n[providers.{name}]", f"kind = {json.dumps(each.kind)}"]
        lines[0] += "".join(f"  # {found.reasons[name]}" for _ in [0] if name in found.reasons)
        if each.base_url is not None and each.base_url != found.vendors[each.kind].base_url:
            lines.append(f"base_url = {json.dumps(each.base_url)}")
        if name in variables:
            lines.append(f"api_key = {json.dumps('env:' + variables[name])}")
        parts = {"organization": each.organization, "project": each.project}
        lines += [f"{part} = {json.dumps(value)}" for part, value in parts.items() if value is not None]
        if not found.vendors[each.kind].local:  # the local server has only one model
            lines.append('# models = ["some-model"]        # omitted: all models of the vendor')
        lines.append(f"# [providers.{name}.limits]")
        lines.append("# requests_per_minute = 500\n")
        yield "\n".join(lines)
