"""A model that agents talk to. What it does is said in the user's words: ``[[verb argument]]``, the last that is there.

Agents ask models for other things, too (a title, a summary, whether the user is done). Such a request has no tool that
writes, and gets a short text.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable

import trio

from llm_actors.run import Run
from llm_protocol.content import Document, Image, Message, Opaque, Part, Tool, ToolCall, ToolResult
from llm_protocol.events import Finished, ItemDone, ItemKind, ItemStarted, Started, ToolCallDelta, UsageReported
from llm_protocol.failures import Failure, FailureKind
from llm_protocol.requests import ChatRequest
from llm_protocol.response import FinishReason, Usage
from support.server import add_text, begin_text, end_text

CONTENT = 'héllo "quoted" \\back\\slash\ttab\n日本 🎉 $HOME `x`\n\n  indented\n'
"""What is written: everything that quoting, encoding and joining can spoil."""

SILENT_SECONDS = 40.0

_VERB = re.compile(r"\[\[(\w+)(?: ([^\]]*))?\]\]")


def _by_shell(path: str) -> str:
    text = base64.b64encode(CONTENT.encode()).decode()
    return f"printf %s {text} | base64 -d > {path}"


WRITERS: dict[str, Callable[[str], dict[str, object]]] = {
    "Write": lambda path: {"file_path": path, "content": CONTENT},  # Claude Code
    "write": lambda path: {"filePath": path, "content": CONTENT},  # opencode
    "write_file": lambda path: {"file_path": path, "content": CONTENT},  # gemini-cli, qwen-code, and our scripts
    "Partialwrite_file": lambda path: {"file_path": path, "content": CONTENT},  # the same, streamed by instructor
    "exec_command": lambda path: {"cmd": _by_shell(path)},  # Codex
    "shell_command": lambda path: {"command": _by_shell(path)},
    "shell": lambda path: {"command": ["bash", "-c", _by_shell(path)]},
}
"""The tools that write, by name, with their arguments."""


def verbs(request: ChatRequest) -> list[tuple[str, str]]:
    """What the user has said so far that is for us."""
    return _verbs_in([message for message in request.messages if message.role == "user"])


def latest_verbs(request: ChatRequest) -> list[tuple[str, str]]:
    """The same of the user's last turn alone."""
    return _verbs_in([message for message in request.messages if message.role == "user"][-1:])


def _verbs_in(messages: list[Message]) -> list[tuple[str, str]]:
    said = "\n".join(text for message in messages for part in message.content if (text := getattr(part, "text", None)))
    found: list[tuple[str, str]] = []
    for verb, argument in _VERB.findall(said):
        if not found or found[-1] != (verb, argument):  # some say it twice, in other words
            found.append((verb, argument))
    return found


async def agent_model(run: Run) -> None:
    """Do what the user's last words say."""
    request = run.request
    assert isinstance(request, ChatRequest)
    said = verbs(request)
    verb, argument = said[-1] if said else ("say", "ok")
    match verb:
        case "edit":
            await _edit(run, request, argument)
        case "read":
            await _read(run, request, argument)
        case "recall":
            await _say(run, "recalled: " + " ".join(verb for verb, _ in said))
        case "look":
            seen = [part for message in request.messages for part in message.content if isinstance(part, Image)]
            await _say(run, f"seen: {', '.join(part.media_type or 'an address' for part in seen)}")
        case "shape":
            form = request.response_format
            await _say(run, '{"shape": "kept"}' if form is not None and form.type == "json_schema" else "no shape")
        case "silent":
            await trio.sleep(SILENT_SECONDS)
            await _say(run, "after silence")
        case "pause":
            begin_text(run)
            add_text(run, "before ")
            await trio.sleep(SILENT_SECONDS)
            add_text(run, "after")
            end_text(run)
        case "hang":
            begin_text(run)
            add_text(run, "hanging")
            await trio.sleep_forever()
        case "fail":
            kind = FailureKind(argument.strip())
            wait = 1.0 if kind.value in ("rate_limited", "overloaded") else None
            run.fail(Failure(kind=kind, message=f"as asked for: {kind.value}", retry_after=wait))
        case _:
            await _say(run, argument or "ok")


async def _say(run: Run, text: str) -> None:
    begin_text(run)
    for word in text.replace(" ", "\0 ").split("\0"):
        add_text(run, word)
        await trio.lowlevel.checkpoint()
    end_text(run)


async def _read(run: Run, request: ChatRequest, path: str) -> None:
    """Have a file read, and say what of it is no text."""
    seen = [part for message in request.messages for part in message.content]
    seen += [part for each in seen if isinstance(each, ToolResult) for part in each.content]
    shown = [part.media_type for part in seen if isinstance(part, Image | Document)]
    if shown or not any(isinstance(each, Tool) and each.name == "Read" for each in request.tools):
        await _say(run, f"seen: {' '.join(map(str, shown))}")
        return
    if any(isinstance(part, ToolResult) for part in request.messages[-1].content):
        await _say(run, "seen: nothing")
        return
    await _call(run, "Read", {"file_path": path})


def _is_result(part: Part) -> bool:
    return isinstance(part, ToolResult) or (
        isinstance(part, Opaque) and part.value.get("type") == "custom_tool_call_output"
    )


def _script_tool(request: ChatRequest) -> str | None:
    """The name of Codex' tool for GPT-6, which takes JavaScript; ``"exec"`` where it is as Codex says it."""
    if "additional_tools" in str([part for each in request.messages for part in each.content]):
        return "exec"
    return next((each.name for each in request.tools if isinstance(each, Tool) and each.name.endswith("exec")), None)


def _run_script(run: Run, tool: str, path: str) -> None:
    script = f"await tools.exec_command({json.dumps({'cmd': _by_shell(path)})});"
    if tool == "exec":
        value = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "exec", "input": script}
        value["namespace"] = "functions"
        part: Part = Opaque(dialect="openai_responses", value=value)
    else:
        part = ToolCall(id="call_1", name=tool, arguments=json.dumps({"input": script}))
    run.log.append(Started(model="fake-1", provider="fake"))
    kind: ItemKind = "opaque" if tool == "exec" else "tool_call"
    run.log.append(ItemStarted(index=0, kind=kind, id="call_1", name=tool))
    run.log.append(ItemDone(index=0, part=part))
    run.log.append(UsageReported(Usage(input_tokens=3, output_tokens=2)))
    run.finish(Finished(reason=FinishReason.TOOL_CALLS), run.folded())


async def _edit(run: Run, request: ChatRequest, path: str) -> None:
    if "*file listing*" in str(request.messages):  # aider, whose models write files into their answers
        await _say(run, f"{path.rpartition('/')[2]}\n```\n{CONTENT}```\n")
        return
    tool = next((each for each in request.tools if isinstance(each, Tool) and each.name in WRITERS), None)
    answered = any(_is_result(part) for part in request.messages[-1].content)
    if tool is None and not answered and (script := _script_tool(request)) is not None:
        _run_script(run, script, path)
        return
    if tool is None or answered:
        await _say(run, "edited" if answered else "ok")
        return
    await _call(run, tool.name, WRITERS[tool.name](path))


async def _call(run: Run, tool: str, given: object) -> None:
    arguments = json.dumps(given, ensure_ascii=False)
    run.log.append(Started(model="fake-1", provider="fake"))
    run.log.append(ItemStarted(index=0, kind="tool_call", id="call_1", name=tool))
    for start in range(0, len(arguments), 7):
        run.log.append(ToolCallDelta(0, arguments[start : start + 7]))
        await trio.lowlevel.checkpoint()
    run.log.append(ItemDone(index=0, part=ToolCall(id="call_1", name=tool, arguments=arguments)))
    run.log.append(UsageReported(Usage(input_tokens=3, output_tokens=2)))
    run.finish(Finished(reason=FinishReason.TOOL_CALLS), run.folded())
