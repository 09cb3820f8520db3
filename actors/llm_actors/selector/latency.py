"""A model of how long a response takes: a fixed part, a part for each prompt token and a part for each output token.

The three parts are fitted to the measured attempts, by least squares of the relative errors. Evidence decays with a
half-life of `EVIDENCE_SECONDS`. So a deployment with much traffic has a precise estimate. For one with little traffic,
the next response counts more than all earlier ones. A response that does not fit is either chance or a change:

* If the estimate is old, a much faster response is a change: a slow deployment is not fast by chance.
* Any other response is first taken for chance, and its error is limited. Several in a row are a change (Page's CUSUM
  test).

After a change, earlier evidence hardly counts. A streamed response measures the parts separately, because the first
token arrives after the fixed part and the prompt. A complete response measures only the sum, but many of different
lengths separate the parts too. A part without any evidence stays as in `TYPICAL_S`.
"""

from __future__ import annotations

from math import exp, exp2, inf, log

import msgspec

EVIDENCE_SECONDS = 120.0
"""The half-life of an observation, in seconds."""

TYPICAL_S = (0.5, 0.000_2, 0.015)
"""For a deployment without evidence, in seconds: the fixed part, per prompt token, per output token."""

SURPRISING = 2.5
"""An error of more than this many standard deviations is a change or, as chance, is limited to this size. An error is
the logarithm of the measured time divided by the expected time.
"""

CUSUM_THRESHOLD = 5.0
CUSUM_DRIFT = 1.0
CUSUM_STEP = 2.0
"""The parameters of the CUSUM tests, one for slower and one for faster responses. From each error, in standard
deviations, `CUSUM_DRIFT` is subtracted. The rest, at most `CUSUM_STEP`, is added to a sum that is never below 0. A sum
of `CUSUM_THRESHOLD` or more means a change. That takes three responses or more.
"""

WELL_KNOWN = 3.0
"""An estimate that is worth fewer responses than this (see `evidence_at`) is old."""

KEPT_AT_CHANGE = 0.2
"""The total weight of all earlier evidence after a change; the response that revealed the change has weight 1."""

LEAST_EVIDENCE = 0.5
"""The error of an estimate is computed as if the estimate were worth at least this many responses."""

STIFFNESS = 0.002
"""How strongly the parts keep their earlier values where the evidence does not separate them."""

USUAL_SPREAD = 0.3
"""The assumed standard deviation of the errors before any are measured. Later it stays within `SPREAD_LIMITS`."""

SPREAD_LIMITS = (0.15, 1.0)
SPREAD_PRIOR = 8.0
SPREAD_MEMORY = 50.0
"""`SPREAD_PRIOR`: how many errors the assumed spread is worth. `SPREAD_MEMORY`: over how many of the newest errors,
about, the spread is measured.
"""

LEAST_WRITING_SECONDS = 0.01
"""A stream that ended less than this many seconds after its first token came in one piece, and does not separate the
parts.
"""

LEAST_SECONDS = 0.001
"""Shorter times, in seconds, are rounded up to this, so that ratios are meaningful."""

SWEEPS = 12
CLOSE_ENOUGH = 1e-4
"""Coordinate descent ends after `SWEEPS` rounds, or when the parts change by less than `CLOSE_ENOUGH` in total in one
round.
"""

Parts = tuple[float, float, float]


class LatencyModel(msgspec.Struct, frozen=True):
    """The measured speed of one deployment. `after` returns the model with one more response."""

    parts: Parts = (1.0, 1.0, 1.0)
    """The three parts, as multiples of `TYPICAL_S`."""
    squares: tuple[float, float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    """The upper triangle of the weighted sum of the outer products of the observations with themselves."""
    products: Parts = (0.0, 0.0, 0.0)
    """The weighted sum of the observations, each multiplied by the time that it took."""
    evidence: float = 0.0
    """How many responses the estimate was worth at the time ``at``."""
    at: float = -inf
    spread: float = USUAL_SPREAD * USUAL_SPREAD
    """The variance of the errors."""
    slower: float = 0.0
    faster: float = 0.0
    """The sums of the CUSUM tests."""
    slower_since: float = -inf
    """When the deployment last became slower."""
    since_change: int = 0
    """Responses since the last change, or since the start."""

    def seconds(self, input_tokens: float, output_tokens: float) -> float:
        """Return the expected seconds of a response of ``output_tokens`` to a prompt of ``input_tokens``."""
        fixed, prompt, writing = self.parts
        each_in, each_out = TYPICAL_S[1] * input_tokens, TYPICAL_S[2] * output_tokens
        return TYPICAL_S[0] * fixed + each_in * prompt + each_out * writing

    def evidence_at(self, now: float) -> float:
        """Return how many responses the estimate is worth at ``now``."""
        return self.evidence * _faded(now - self.at)

    def after(
        self, now: float, *, input_tokens: int, output_tokens: int, took_s: float, first_token_s: float | None = None
    ) -> LatencyModel:
        """Return the model with one more response, which took ``took_s`` seconds and was complete at ``now``.
        ``first_token_s``: the seconds to the first token, if the response was streamed.
        """
        took_s, expected = max(took_s, LEAST_SECONDS), max(self.seconds(input_tokens, output_tokens), LEAST_SECONDS)
        error, spread = log(took_s / expected), self.spread
        kept, scale, believed = _faded(now - self.at), expected, 1.0
        slower, faster, changed = 0.0, 0.0, False
        if not self.evidence:
            scale = min(took_s, expected)
        else:
            known = self.evidence * kept
            deviation = (spread * (1 + 1 / max(known, LEAST_EVIDENCE))) ** 0.5
            errors = error / deviation
            slower = max(0.0, self.slower + min(errors - CUSUM_DRIFT, CUSUM_STEP))
            faster = max(0.0, self.faster + min(-errors - CUSUM_DRIFT, CUSUM_STEP))
            changed = max(slower, faster) >= CUSUM_THRESHOLD or (known < WELL_KNOWN and errors < -SURPRISING)
            if changed:
                kept, scale = min(kept, KEPT_AT_CHANGE / self.evidence), min(took_s, expected)
                slower = faster = 0.0
            else:
                most = SURPRISING * deviation
                believed = exp(min(max(error, -most), most) - error)
                memory = SPREAD_PRIOR + min(self.evidence, SPREAD_MEMORY)
                most = 9 * spread
                spread += (min(error * error, most) - spread) / (memory + 1)
                spread = min(max(spread, SPREAD_LIMITS[0] ** 2), SPREAD_LIMITS[1] ** 2)
        weight = 1 / (scale * scale)
        sums = [each * kept for each in (*self.squares, *self.products)]
        one, prompt, writing = TYPICAL_S[0], TYPICAL_S[1] * input_tokens, TYPICAL_S[2] * output_tokens
        first = first_token_s
        if first is None or output_tokens < 1 or took_s - first < LEAST_WRITING_SECONDS:
            _add(sums, (one, prompt, writing), took_s * believed, weight)
        else:
            _add(sums, (one, prompt, 0.0), first * believed, weight)
            _add(sums, (0.0, 0.0, writing), (took_s - first) * believed, weight)
        return LatencyModel(
            _solved(self.parts, sums),
            (sums[0], sums[1], sums[2], sums[3], sums[4], sums[5]),
            (sums[6], sums[7], sums[8]),
            self.evidence * kept + 1,
            now,
            spread,
            slower,
            faster,
            now if changed and error > 0 else self.slower_since,
            1 if changed else self.since_change + 1,
        )


def _faded(age: float) -> float:
    return exp2(-max(0.0, age) / EVIDENCE_SECONDS)


def _add(sums: list[float], row: Parts, took_s: float, weight: float) -> None:
    x, y, z = row
    for index, value in enumerate((x * x, x * y, x * z, y * y, y * z, z * z, x * took_s, y * took_s, z * took_s)):
        sums[index] += weight * value


def _solved(before: Parts, sums: list[float]) -> Parts:
    """Return the parts that fit best. No part is negative. They are found by coordinate descent from ``before``, with a
    penalty for the distance from there.
    """
    xx, xy, xz, yy, yz, zz, xt, yt, zt = sums
    x, y, z = before
    xt, yt, zt = xt + STIFFNESS * x, yt + STIFFNESS * y, zt + STIFFNESS * z
    xx, yy, zz = xx + STIFFNESS, yy + STIFFNESS, zz + STIFFNESS
    for _ in range(SWEEPS):
        last = x, y, z
        x = max(0.0, (xt - xy * y - xz * z) / xx)
        y = max(0.0, (yt - xy * x - yz * z) / yy)
        z = max(0.0, (zt - xz * x - yz * y) / zz)
        if abs(x - last[0]) + abs(y - last[1]) + abs(z - last[2]) < CLOSE_ENOUGH:
            break
    return x, y, z
