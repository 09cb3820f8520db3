"""The server of the daemon: one port for HTTP/1.1 and WebSocket clients of every supported vendor API."""

from llm_runtime.server.actors import ListenAddress, server_child
from llm_runtime.server.engine import RequestEngine
from llm_runtime.server.listener import CannotListenError

__all__ = ["CannotListenError", "ListenAddress", "RequestEngine", "server_child"]
