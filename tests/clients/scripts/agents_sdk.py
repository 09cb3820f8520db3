"""OpenAI's Agents SDK: agents_sdk.py URL KEY MODEL FILE. Its default model API is Responses."""

import asyncio
import sys

from agents import Agent, OpenAIProvider, RunConfig, Runner, WebSearchTool, function_tool, set_tracing_disabled
from agents.model_settings import ModelSettings

url, key, model, file = sys.argv[1:]
set_tracing_disabled(True)


@function_tool
def write_file(file_path: str, content: str) -> str:
    """Write a file."""
    with open(file_path, "w", newline="") as out:
        out.write(content)
    return "written"


async def main() -> None:
    agent = Agent(
        name="writer",
        instructions="You write files.",
        tools=[WebSearchTool(), write_file],
        model_settings=ModelSettings(include_usage=True),
    )
    config = RunConfig(model=model, model_provider=OpenAIProvider(api_key=key, base_url=f"{url}/v1"))
    done = await Runner.run(agent, f"[[edit {file}]]", run_config=config)
    assert done.final_output == "edited", done.final_output
    again = [*done.to_input_list(), {"role": "user", "content": "[[recall it]]"}]
    streamed = Runner.run_streamed(agent, again, run_config=config)
    events = [event.type async for event in streamed.stream_events()]
    assert streamed.final_output == "recalled: edit recall", streamed.final_output
    assert "raw_response_event" in events
    assert done.context_wrapper.usage.total_tokens > 0


asyncio.run(main())
print("passed")
