"""The handling of parameters that a target does not support: one table, and the functions that apply it."""

from llm_protocol.parameters.adapt import Adapted, adapt, refuse_lossy
from llm_protocol.parameters.models import stops_reasoning
from llm_protocol.parameters.restore import EventFilter
from llm_protocol.parameters.table import LACKABLE
from llm_protocol.parameters.targets import COMPATIBLE_RESPONSES, TARGETS, FormLimits, NameLimit, RequestTarget

__all__ = [
    "COMPATIBLE_RESPONSES",
    "LACKABLE",
    "TARGETS",
    "Adapted",
    "EventFilter",
    "FormLimits",
    "NameLimit",
    "RequestTarget",
    "adapt",
    "refuse_lossy",
    "stops_reasoning",
]
