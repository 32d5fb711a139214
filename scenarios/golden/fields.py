"""Fields of a record: how a value is drawn, how it reads in a text, and which answers are right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
PEOPLE = (
    "Mira Okafor", "Tobias Lindqvist", "Anouk Marchetti", "Rafael Dubois", "Ingrid Halvorsen",
    "Kwame Mensah", "Leonie Brandt", "Stefan Petrov", "Paula Amaral", "Idris Rahman",
    "Yuki Tanaka", "Carla Fontaine", "Emil Novak", "Nadia Haddad", "Oskar Virtanen",
    "Farah Siddiqui", "Jonas Keller", "Selma Aydin", "Viktor Moreau", "Bruna Castellan",
)  # fmt: skip
TOWNS = (
    "Aldermoor", "Brackwater", "Carrow Bay", "Dunmere", "Eastfell", "Farrowgate", "Glenholt",
    "Harwick", "Ilverton", "Kestrel Point", "Lowmarsh", "Norbridge", "Oakhurst", "Pellbrook",
)  # fmt: skip


def pick(rng: np.random.Generator, items: Sequence[T]) -> T:
    """One of ``items``; by ``random()`` alone, the stream that NumPy is least likely to change."""
    return items[int(rng.random() * len(items))]


def between(rng: np.random.Generator, low: int, high: int) -> int:
    """An integer in ``low``..``high``, both included."""
    return low + int(rng.random() * (high - low + 1))


@dataclass(frozen=True)
class Value:
    """One drawn value.

    Attributes:
        text: as it stands in the document.
        json: as it belongs in extracted JSON, or in a tool's argument.
        answers: short answers that are right, the plainest first.
    """

    text: str
    json: Any
    answers: tuple[str, ...]


Draw = Callable[[np.random.Generator], Value]


@dataclass(frozen=True)
class Field:
    """One field of a subject's records."""

    name: str
    draw: Draw
    question: str
    schema: dict[str, Any]


def plain(text: str) -> Value:
    return Value(text, text, (text,))


def choice(options: Sequence[str]) -> Draw:
    return lambda rng: plain(pick(rng, options))


def code(prefix: str, low: int, high: int) -> Draw:
    return lambda rng: plain(f"{prefix}{between(rng, low, high)}")


def pair(first: Sequence[str], second: Sequence[str]) -> Draw:
    return lambda rng: plain(f"{pick(rng, first)} {pick(rng, second)}")


def number(low: int, high: int, unit: str = "", step: int = 1) -> Draw:
    """A whole number; the unit stands in the document, and may stand in the answer."""

    def draw(rng: np.random.Generator) -> Value:
        value = between(rng, low // step, high // step) * step
        text = f"{value} {unit}".strip()
        return Value(text, value, (str(value), text) if unit else (str(value),))

    return draw


def decimal(low: int, high: int, unit: str) -> Draw:
    """A number with one decimal that is never zero, so that it reads in one way only."""

    def draw(rng: np.random.Generator) -> Value:
        value = round(between(rng, low, high) + between(rng, 1, 9) / 10, 1)
        return Value(f"{value} {unit}", value, (str(value), f"{value} {unit}"))

    return draw


def money(low: int, high: int) -> Draw:
    """An amount in euros with cents."""

    def draw(rng: np.random.Generator) -> Value:
        amount = f"{between(rng, low, high)}.{between(rng, 11, 99)}"
        forms = (amount, f"{amount} euros", f"EUR {amount}", f"{amount} EUR", f"€{amount}")
        return Value(f"EUR {amount}", float(amount), forms)

    return draw


def date() -> Draw:
    """A day of the year, the day before the month."""

    def draw(rng: np.random.Generator) -> Value:
        day, month = between(rng, 1, 28), pick(rng, MONTHS)
        text = f"{day} {month}"
        return Value(text, text, (text, f"{month} {day}"))

    return draw


def clock() -> Draw:
    """A time of the day, 24 hours; drawn so that the 12-hour form is not the same digits."""

    def draw(rng: np.random.Generator) -> Value:
        hour, minute = between(rng, 13, 21), between(rng, 0, 11) * 5
        text = f"{hour}:{minute:02d}"
        return Value(text, text, (text, f"{hour - 12}:{minute:02d} pm"))

    return draw


def string(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


INTEGER: dict[str, Any] = {"type": "integer"}
NUMBER: dict[str, Any] = {"type": "number"}
