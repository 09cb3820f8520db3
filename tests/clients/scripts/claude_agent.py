"""One turn of Anthropic's agent SDK: ``claude_agent.py PROMPT [--continue]``."""

import asyncio
import sys

from claude_agent_sdk import ClaudeAgentOptions, ResultMessage, query


async def main():
    options = ClaudeAgentOptions(permission_mode="acceptEdits", continue_conversation="--continue" in sys.argv)
    code = 1
    async for message in query(prompt=sys.argv[1], options=options):
        if isinstance(message, ResultMessage):
            print(message.result)
            code = int(message.is_error)
    return code


sys.exit(asyncio.run(main()))
