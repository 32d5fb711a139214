"""What ``records.jsonl`` is about: four registers, and how their facts are written.

A register is a sheet of facts, one a line: ``P17 town=Harwick``. The wording is narrow on purpose.
A model of a million parameters finds a value where it stands right after its key and its field,
and copies it where it is written the same way in the question, the sheet and the answer: hence the
key at the beginning of lines and questions, and values without a space before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scenarios.golden.fields import (
    DAYS,
    INTEGER,
    PEOPLE,
    TOWNS,
    Field,
    choice,
    clock,
    code,
    number,
    string,
)
from scenarios.golden.tools import tool_schema

_CARRIERS = ("Corvane", "Elmstead", "Fennick", "Garrow", "Hollis", "Juniper", "Kaldor")
_STATES = ("delayed", "delivered", "waiting", "lost", "returned")
_PARTS = ("valve", "bearing", "filter", "gasket", "pump", "sensor", "belt", "fuse")
_MODES = ("running", "stopped", "idle", "faulty", "cleaning")
_ROOMS = ("Birch Room", "Harbour Room", "Attic Studio", "Long Gallery", "Glass Hall", "Cellar")
_MENUS = ("soup", "pie", "salad", "risotto", "curry", "dumplings")
_ITEMS = ("tape", "gloves", "bolts", "rollers", "mats", "ties", "lamps", "brushes")
_COLOURS = ("red", "blue", "green", "amber", "violet", "grey", "ochre")


@dataclass(frozen=True)
class Action:
    """A tool of a register: called with a record's key and some of its fields.

    Attributes:
        asks: how a user asks for it, after the key.
        fields: the arguments beside the key; their values stand in the sheet.
    """

    name: str
    description: str
    asks: tuple[str, ...]
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Register:
    """One register.

    Attributes:
        heading: the line above its facts.
        noun: what a record is, and the name of the key in a tool's arguments.
        key: draws a key; unique in a sheet.
    """

    name: str
    heading: str
    noun: str
    key: Field
    fields: tuple[Field, ...]
    actions: tuple[Action, ...]

    def schema(self, names: Sequence[str]) -> dict[str, Any]:
        """JSON Schema of an object with just these fields."""
        return {
            "type": "object",
            "properties": {f.name: f.schema for f in self.fields if f.name in names},
            "required": list(names),
            "additionalProperties": False,
        }

    def tools(self) -> list[dict[str, Any]]:
        """Its actions as the OpenAI API takes them."""
        schemas = {field.name: field.schema for field in self.fields}
        return [
            tool_schema(
                action.name,
                action.description,
                {self.noun: string(), **{name: schemas[name] for name in action.fields}},
                (self.noun, *action.fields),
            )
            for action in self.actions
        ]


def _word(name: str, options: Sequence[str]) -> Field:
    return Field(name, choice(options), "", string())


def _enum(name: str, options: Sequence[str]) -> Field:
    return Field(name, choice(options), "", string(enum=list(options)))


def _count(name: str, low: int = 12, high: int = 96) -> Field:
    return Field(name, number(low, high), "", INTEGER)


def _key(noun: str, letter: str) -> Field:
    return Field(noun, code(letter, 10, 99), "", string())


REGISTERS: tuple[Register, ...] = (
    Register(
        "parcels", "Parcels of the week", "parcel", _key("parcel", "P"),
        (
            _word("town", TOWNS), _word("carrier", _CARRIERS), _enum("status", _STATES),
            _enum("day", DAYS), _count("weight"),
        ),
        (
            Action("dispatch", "Sends a parcel on.",
                   ("dispatch it.", "send it on."), ("town", "carrier")),
            Action("report", "Reports the state of a parcel.",
                   ("report it.", "file a report."), ("status", "day")),
        ),
    ),
    Register(
        "machines", "Machines of the north hall", "machine", _key("machine", "M"),
        (
            _word("owner", PEOPLE), _enum("mode", _MODES), _word("part", _PARTS),
            _count("hours"), _enum("day", DAYS),
        ),
        (
            Action("order", "Orders a part for a machine.",
                   ("order its part.", "get a new part."), ("part", "owner")),
            Action("inspect", "Plans an inspection.",
                   ("inspect it.", "plan an inspection."), ("day", "mode")),
        ),
    ),
    Register(
        "bookings", "Bookings of the house", "booking", _key("booking", "B"),
        (
            _word("guest", PEOPLE), _word("room", _ROOMS), Field("time", clock(), "", string()),
            _count("seats"), _word("menu", _MENUS),
        ),
        (
            Action("reserve", "Reserves the room of a booking.",
                   ("reserve it.", "hold the room."), ("room", "time", "seats")),
            Action("remind", "Reminds a guest.",
                   ("remind the guest.", "send a reminder."), ("guest", "time")),
        ),
    ),
    Register(
        "stock", "Stock of the south store", "shelf", _key("shelf", "S"),
        (
            _word("item", _ITEMS), _word("colour", _COLOURS), _count("units"),
            _word("town", TOWNS), _word("keeper", PEOPLE),
        ),
        (
            Action("refill", "Refills a shelf.",
                   ("refill it.", "fill it up."), ("item", "units")),
            Action("move", "Moves what is on a shelf.",
                   ("move it.", "ship it there."), ("town", "item", "colour")),
        ),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """Facts about some records of one register.

    Attributes:
        facts: key → field → its text and its JSON value.
        text: the facts, one a line, each record's together.
    """

    register: Register
    facts: dict[str, dict[str, tuple[str, Any]]]

    @property
    def text(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The facts in the order of the sheet."""
        return [
            f"{key} {name}={text}"
            for key, fields in self.facts.items()
            for name, (text, _) in fields.items()
        ]

    def __or__(self, other: Sheet) -> Sheet:
        return Sheet(self.register, self.facts | other.facts)


def sheet(
    rng: np.random.Generator, register: Register, records: int, without: Sheet | None = None
) -> Sheet:
    """``records`` records with different keys, none of which ``without`` has."""
    taken = set(without.facts) if without is not None else set()
    facts: dict[str, dict[str, tuple[str, Any]]] = {}
    while len(facts) < records:
        key = register.key.draw(rng).text
        if key not in taken and key not in facts:
            drawn = {field.name: field.draw(rng) for field in register.fields}
            facts[key] = {name: (value.text, value.json) for name, value in drawn.items()}
    return Sheet(register, facts)
