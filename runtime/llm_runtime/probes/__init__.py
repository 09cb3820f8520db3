"""Checks whether everything that the configuration names works, for operators before and after a release.

`check` tries everything at the same time, each within `CHECK_SECONDS`. `Report` is the result. No prompt is sent to a
model, because that would cost money.
"""

from llm_runtime.probes.probe import CHECK_SECONDS, check
from llm_runtime.probes.report import Check, CheckStatus, Report, Validation, refused, report

__all__ = ["CHECK_SECONDS", "Check", "CheckStatus", "Report", "Validation", "check", "refused", "report"]
