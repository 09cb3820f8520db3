"""Traces and metrics over OpenTelemetry, for `[otel]`. Its SDK is imported when a runtime with `[otel]` starts."""
