"""A Flask service: blocking views in threads, all on one runtime.

    flask --app flask_app run                           with the providers of the environment
    LLM_RUNTIME_CONFIG=my.toml gunicorn --threads 16 "flask_app:create_app()"

A runtime does not survive a fork, so each worker process makes its own: with gunicorn, leave `--preload` out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from flask import Flask, Response, jsonify, request
from flask.typing import ResponseReturnValue

from llm_runtime import LLMClientError, sync


def create_app() -> Flask:
    """The application. Its runtime is closed when the process exits."""
    app = Flask(__name__)
    rt = sync.open_runtime(os.environ.get("LLM_RUNTIME_CONFIG"))

    @app.post("/ask")
    def ask() -> ResponseReturnValue:
        """One whole response, with its cost."""
        response = rt.chat(request.json["text"], deadline_s=30)
        return jsonify(answer=response.content, model=response.model, cost=response.cost)

    @app.post("/story")
    def story() -> ResponseReturnValue:
        """Text as it is written."""

        def pieces(text: str) -> Iterator[str]:
            with rt.stream(text) as stream:
                yield from stream.text()

        return Response(pieces(request.json["text"]), mimetype="text/plain")

    @app.errorhandler(LLMClientError)
    def failed(error: LLMClientError) -> ResponseReturnValue:
        """Retries and other providers did not help: the failure's own status, such as 429 or 503."""
        return jsonify(error=str(error)), error.failure.rule.status

    return app
