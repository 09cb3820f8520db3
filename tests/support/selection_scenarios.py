"""The worlds in which the selector is measured, by its tests and for the plots of ``docs/selection.md``."""

from __future__ import annotations

from typing import NamedTuple

from support.selection_world import Deployment, Speed, speed, steady

RATES = (0.5, 2.0, 20.0)
"""Requests a second."""

SEEDS = range(5)

SETTLED_S = 300.0
"""From then on nobody is new."""


class Scenario(NamedTuple):
    """A world, the one to watch in it, when that one changes, and how long to run it."""

    title: str
    deployments: tuple[Deployment, ...]
    watched: str
    changed_at: float
    seconds: float

    def __str__(self) -> str:
        return self.title


STEADY = Scenario("Steady state", (steady("slow", 2.0), steady("best", 1.0)), "best", SETTLED_S, 1_500.0)
THREE = Scenario(
    "Steady state of three", (steady("slow", 5.0), steady("good", 1.5), steady("best", 1.0)), "best", SETTLED_S, 1_500.0
)
RECOVERY = Scenario(
    "Recovery",
    (steady("good", 1.5), Deployment("best", (speed(0, 1.0), speed(300, 5.0), speed(600, 1.0))), steady("third", 2.0)),
    "best",
    600.0,
    900.0,
)
LONG_OUTAGE = Scenario(
    "Recovery after a quarter of an hour",
    (steady("good", 2.0), Deployment("best", (speed(0, 1.0), speed(300, 5.0), speed(1_200, 1.0)))),
    "best",
    1_200.0,
    1_400.0,
)
NEWLY_FAST = Scenario(
    "A newly fast one",
    (steady("good", 1.0), Deployment("new", (speed(0, 1.8), speed(400, 0.5)))),
    "new",
    400.0,
    700.0,
)
NEWLY_SLOW = Scenario(
    "A newly slow one",
    (Deployment("best", (speed(0, 1.0), speed(400, 3.0))), steady("good", 1.5)),
    "good",
    400.0,
    700.0,
)
HANGING = Scenario(
    "One that hangs",
    (Deployment("best", (speed(0, 1.0), Speed(120, 60.0, 0.0))), steady("good", 1.5)),
    "good",
    120.0,
    180.0,
)
FLAPPING = Scenario(
    "Flapping",
    (
        Deployment("flapping", tuple(speed(at, 1.0 if at // 120 % 2 == 0 else 4.0) for at in range(0, 1_200, 120))),
        steady("good", 2.0),
    ),
    "flapping",
    240.0,
    1_200.0,
)
COLD = Scenario("Cold start", (steady("slow", 4.0), steady("good", 2.0), steady("best", 1.0)), "best", 0.0, 120.0)
