"""The selector with simulated deployments: how much time it loses, how soon it notices changes, and plots of both.

``bin/bench selection`` prints the numbers, ``bin/bench selection 20`` those of twenty seeds, and ``bin/bench selection
plots`` writes the SVG files of ``docs/selection.md``. Nothing is measured in real time: the results depend only on the
simulations and the seeds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from support.selection_scenarios import (
    COLD,
    FLAPPING,
    HANGING,
    LONG_OUTAGE,
    NEWLY_FAST,
    NEWLY_SLOW,
    RATES,
    RECOVERY,
    SEEDS,
    SETTLED_S,
    STEADY,
    THREE,
    Scenario,
)
from support.selection_world import History, run

PLOTS = Path(__file__).resolve().parents[2] / "docs" / "selection"
COLOURS = ("#d1603d", "#3d7dd1", "#4a9a5b")
WIDTH, HEIGHT, LEFT, TOP, ROW = 720, 118, 60, 44, 128


def main() -> int:
    """Print the figures or draw the plots, as the command line says."""
    if sys.argv[1:] == ["plots"]:
        for name, scenario in _plotted().items():
            (PLOTS / f"{name}.svg").write_text(plot(scenario))
        return 0
    seeds = range(int(sys.argv[1])) if sys.argv[1:] else SEEDS
    for rate in RATES:
        for scenario in (STEADY, THREE, FLAPPING):
            begin = max(scenario.changed_at, SETTLED_S)
            lost = [_run(scenario, rate, seed).regret(begin, scenario.seconds) for seed in seeds]
            print(f"{rate:5} /s  {scenario.title:36} lost: median {median(lost):6.1%}, most {max(lost):6.1%}")
        for scenario in (RECOVERY, LONG_OUTAGE, NEWLY_FAST, NEWLY_SLOW, HANGING, COLD):
            took = [
                _run(scenario, rate, seed).seconds_until_majority(scenario.watched, scenario.changed_at)
                for seed in seeds
            ]
            print(f"{rate:5} /s  {scenario.title:36} noticed: median {median(took):4.0f} s, last {max(took):4.0f} s")
    return 0


def _run(scenario: Scenario, rate: float, seed: int) -> History:
    return run(scenario.deployments, rate=rate, seconds=scenario.seconds, seed=seed)


def _plotted() -> dict[str, Scenario]:
    return {
        "steady": THREE._replace(seconds=900.0),
        "recovery": RECOVERY,
        "newly-fast": NEWLY_FAST,
        "flapping": FLAPPING,
        "cold": COLD,
        "herd": COLD._replace(title="A hundred requests at once, and those after them", seconds=20.0),
    }


def plot(scenario: Scenario) -> str:
    """Each deployment's share of the traffic over the time, one row for each rate, as SVG."""
    lines = [_text(LEFT, 18, scenario.title, size=15)]
    for place, each in enumerate(scenario.deployments):
        lines.append(_text(LEFT + 120 * place, 34, f"■ {each.name}", colour=COLOURS[place]))
    rates = (20.0,) if scenario.seconds < 60 else RATES
    for row, rate in enumerate(rates):
        lines += _row(scenario, rate, TOP + row * ROW)
    height = TOP + len(rates) * ROW + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH + LEFT + 20}" height="{height}"'
        f' font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n"
    )


def _row(scenario: Scenario, rate: float, top: int) -> list[str]:
    burst = 100 if scenario.seconds < 60 else 0
    history = run(scenario.deployments, rate=rate, seconds=scenario.seconds, seed=1, burst=burst)
    buckets = 40 if scenario.seconds < 60 else 90
    step = scenario.seconds / buckets
    found = [_text(4, top + 60, f"{rate:g} /s"), _text(LEFT - 34, top + 10, "100 %", size=9)]
    found.append(f'<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT - 14}" fill="#f3f3f3"/>')
    for bucket in range(buckets):
        begin, below = bucket * step, 0.0
        for place, each in enumerate(scenario.deployments):
            share = history.share(each.name, begin, begin + step)
            x, width, full = LEFT + WIDTH * bucket / buckets, WIDTH / buckets, HEIGHT - 14
            y = top + full * (1 - below - share)
            if share:
                found.append(
                    f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{full * share:.1f}"'
                    f' fill="{COLOURS[place]}"/>'
                )
            below += share
    changes = sorted({speed.at for each in scenario.deployments for speed in each.speeds if speed.at > 0})
    for at in (each for each in changes if each < scenario.seconds):
        x = LEFT + WIDTH * at / scenario.seconds
        found.append(f'<path d="M{x:.1f} {top}v{HEIGHT - 14}" stroke="black" stroke-dasharray="3 3"/>')
    for tenth in range(0, 11, 2):
        x = LEFT + WIDTH * tenth / 10
        found.append(_text(round(x) - 8, top + HEIGHT, f"{scenario.seconds * tenth / 10:g} s", size=9))
    return found


def _text(x: float, y: float, words: str, *, size: int = 11, colour: str = "black") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{colour}">{words}</text>'
