"""Every event and body on standard input, one a line, is one that the newest SDK's types describe."""

import json
import sys
from typing import get_args

from openai.types.responses import Response, ResponsesServerEvent, ResponseStreamEvent
from pydantic import ValidationError


def by_type(union):
    """The models of a union, by their ``type``."""
    models = get_args(get_args(union)[0])
    return {name: model for model in models for name in get_args(model.model_fields["type"].annotation)}


EVENTS = {"http": by_type(ResponseStreamEvent), "websocket": by_type(ResponsesServerEvent)}

count, problems = 0, {}
for line in sys.stdin:
    kind, where, value = json.loads(line)
    name = value.get("type", "")
    if name.startswith("llm-runtime:"):
        continue  # ours, with a prefix of its own
    count += 1
    try:
        model = Response if kind == "body" else EVENTS[kind][name]
        model.model_validate(value)
    except KeyError:
        problems.setdefault(f"{name}: no such event", where)
    except ValidationError as exc:
        for error in exc.errors():
            place = ".".join(map(str, error["loc"]))
            problems.setdefault(f"{name or kind}: {place}: {error['msg']}: {error['input']!r:.100}", where)
if problems:
    sys.exit("\n".join(f"{problem} ({where})" for problem, where in problems.items()))
print(f"passed {count}")
