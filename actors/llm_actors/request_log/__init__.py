"""The request log: requests, responses and decisions, one JSON line per request, for the keys and routes that enable
it.
"""

from llm_actors.request_log.actor import REQUEST_LOG_MAILBOX, RequestLogActor, RunWriter, request_log_child
from llm_actors.request_log.buffer import RequestLog
from llm_actors.request_log.files import find, log_files
from llm_actors.request_log.record import VERSION, LoggedRequest, logged

__all__ = [
    "REQUEST_LOG_MAILBOX",
    "VERSION",
    "LoggedRequest",
    "RequestLog",
    "RequestLogActor",
    "RunWriter",
    "find",
    "log_files",
    "logged",
    "request_log_child",
]
