"""The configuration: validated once, then frozen.

`load` reads a TOML file, `discover` reads the environment. Both return a `Config`. Every mistake is a `ConfigError`:
one line with its place, the mistake, and the right form. This package starts no task and no connection.
"""

from llm_protocol.policy import Attempts, Limits, Policy, Timeouts
from llm_runtime.config.discovery import discover
from llm_runtime.config.errors import ConfigError
from llm_runtime.config.exposure import is_loopback, with_server
from llm_runtime.config.loading import load, parse
from llm_runtime.config.model import Config, CrossModel, Key, Provider, ProviderCache, Selection
from llm_runtime.config.otel import OtelConfig
from llm_runtime.config.request_log import RequestLogConfig, request_log_folder
from llm_runtime.config.server import Server, ServerLimits, ServerTls
from llm_runtime.config.store import StoreConfig, store_file
from llm_runtime.config.vendors import installed_vendors, with_vendors

__all__ = [
    "Attempts",
    "Config",
    "ConfigError",
    "CrossModel",
    "Key",
    "Limits",
    "OtelConfig",
    "Policy",
    "Provider",
    "ProviderCache",
    "RequestLogConfig",
    "Selection",
    "Server",
    "ServerLimits",
    "ServerTls",
    "StoreConfig",
    "Timeouts",
    "discover",
    "installed_vendors",
    "is_loopback",
    "load",
    "parse",
    "request_log_folder",
    "store_file",
    "with_server",
    "with_vendors",
]
