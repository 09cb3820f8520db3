"""Every event and body on standard input, one a line, keeps the schema of Open Responses.

Items of tools that run at a vendor (searches, pictures, custom tools) and their events are OpenAI's own: that schema
has none, and they are left out.
"""

import inspect
import json
import sys
from typing import get_args

from openresponses_types import types
from pydantic import BaseModel, ValidationError

ITEMS = {"message", "function_call", "function_call_output", "reasoning", "compaction"}


def words_of(model):
    """The ``type`` that a model is for."""
    annotation = model.model_fields["type"].annotation
    return [getattr(each, "value", each) for each in (get_args(annotation) or annotation)]


EVENTS = {
    word: model
    for name, model in inspect.getmembers(types, inspect.isclass)
    if name.endswith("StreamingEvent") and issubclass(model, BaseModel)
    for word in words_of(model)
}

count, problems = 0, {}
for line in sys.stdin:
    kind, where, value = json.loads(line)
    name = value.get("type", "")
    if kind != "body" and name not in EVENTS:
        continue
    if name == "error" and kind == "websocket":
        continue  # OpenAI's frame, with a status, which the schema of streams does not have
    item = value.get("item")
    if item is not None and item["type"] not in ITEMS:
        continue
    response = value if kind == "body" else value.get("response")
    if response is not None:
        response["output"] = [each for each in response["output"] if each["type"] in ITEMS]
        if "schema" in response["text"]["format"]:
            response["text"]["format"]["schema"] = None  # an object by the standard; the package takes null alone
    count += 1
    try:
        (types.ResponseResource if kind == "body" else EVENTS[name]).model_validate(value)
    except ValidationError as exc:
        for error in exc.errors():
            place = ".".join(map(str, error["loc"]))
            problems.setdefault(f"{name or kind}: {place}: {error['msg']}: {error['input']!r:.100}", where)
if problems:
    sys.exit("\n".join(f"{problem} ({where})" for problem, where in problems.items()))
print(f"passed {count}")
