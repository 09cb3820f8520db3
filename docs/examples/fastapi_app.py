"""A FastAPI service: typed responses, streams that end when their client leaves, and one runtime for all requests.

    fastapi run fastapi_app.py                          with the providers of the environment
    LLM_RUNTIME_CONFIG=my.toml fastapi run fastapi_app.py

A worker process has a runtime of its own. For limits and budgets that several share, see docs/how-to/redis.md.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from llm_runtime import LLMClientError, aio


class Question(BaseModel):
    """What a client asks."""

    text: str


class City(BaseModel):
    """The response of /city, for the model and for the client."""

    name: str
    country: str


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The runtime is open as long as the service runs; responses in progress have `server.drain_s` to finish."""
    async with aio.open_runtime(os.environ.get("LLM_RUNTIME_CONFIG")) as rt:
        app.state.rt = rt
        yield


def runtime(request: Request) -> aio.AsyncioRuntime:
    """The runtime, for endpoints."""
    rt: aio.AsyncioRuntime = request.app.state.rt
    return rt


Runtime = Annotated[aio.AsyncioRuntime, Depends(runtime)]
app = FastAPI(lifespan=lifespan)


@app.post("/city")
async def city(question: Question, rt: Runtime) -> City:
    """A typed response. If it does not fit the type, the model may correct it once."""
    response = await rt.chat(question.text, response_type=City, repair=True, deadline_s=30)
    return response.parsed


@app.post("/story")
async def story(question: Question, rt: Runtime) -> StreamingResponse:
    """Text as it is written. When the client leaves, the vendor's connection is closed, too."""

    async def pieces() -> AsyncIterator[str]:
        async with rt.stream(question.text) as stream:
            async for text in stream.text():
                yield text

    return StreamingResponse(pieces(), media_type="text/plain")


@app.exception_handler(LLMClientError)
async def failed(_: Request, error: LLMClientError) -> JSONResponse:
    """Retries and other providers did not help: the failure's own status, such as 429 or 503."""
    return JSONResponse({"error": str(error)}, error.failure.rule.status)
