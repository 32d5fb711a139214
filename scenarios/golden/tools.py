"""Tool calls: four fictional services, what a user says, and the call that is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clustereval.core.prompts import Message, Prompt, Reference
from scenarios.golden.fields import DAYS, PEOPLE, TOWNS, between, pick

Args = dict[str, list[Any]]
Said = tuple[str, Args]


def tool_schema(
    name: str,
    description: str,
    properties: dict[str, dict[str, Any]],
    required: Sequence[str],
) -> dict[str, Any]:
    """A tool as the OpenAI API takes it."""
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {
                "type": "object",
                "properties": properties,
                "required": list(required),
                "additionalProperties": False,
            },
        },
    }


@dataclass(frozen=True)
class Tool:
    """One tool: its schema, and a draw of (what the user says, accepted arguments)."""

    name: str
    description: str
    properties: dict[str, dict[str, Any]]
    required: tuple[str, ...]
    say: Callable[[np.random.Generator], Said]

    def schema(self) -> dict[str, Any]:
        """As the OpenAI API takes it."""
        return tool_schema(self.name, self.description, self.properties, self.required)


@dataclass(frozen=True)
class Service:
    """Tools that are offered together, and the rules that the assistant is given."""

    name: str
    policy: str
    tools: tuple[Tool, ...]


def _s(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _i(description: str) -> dict[str, Any]:
    return {"type": "integer", "description": description}


def _search_trains(rng: np.random.Generator) -> Said:
    start = pick(rng, TOWNS[:7])
    end, day = pick(rng, TOWNS[7:]), pick(rng, DAYS)
    if rng.random() < 0.5:
        return (
            f"Which trains go from {start} to {end} on {day}?",
            {"origin": [start], "destination": [end], "day": [day], "travel_class": ["", "second"]},
        )
    return (
        f"I need to get from {start} to {end} this {day}, first class please. What is there?",
        {"origin": [start], "destination": [end], "day": [day], "travel_class": ["first"]},
    )


def _hold_seat(rng: np.random.Generator) -> Said:
    train, seats = f"VL{between(rng, 100, 989)}", between(rng, 2, 9)
    said = pick(rng, ("Hold {n} seats on train {t} for me.", "Keep {n} seats free on {t}, please."))
    return said.format(n=seats, t=train), {"train": [train], "seats": [seats]}


def _lost_item(rng: np.random.Generator) -> Said:
    item = pick(rng, ("umbrella", "rucksack", "violin case", "thermos", "scarf", "laptop sleeve"))
    town = pick(rng, TOWNS)
    return (
        f"I left my {item} at the station in {town}. Can you report it?",
        {"item": [item, f"my {item}"], "station": [town]},
    )


def _move_stock(rng: np.random.Generator) -> Said:
    sku, count = f"SKU-{between(rng, 10000, 98999)}", between(rng, 3, 240)
    source, goal = between(rng, 1, 20), between(rng, 21, 40)
    return (
        f"Move {count} units of {sku} from aisle {source} to aisle {goal}.",
        {"sku": [sku], "quantity": [count], "from_aisle": [source], "to_aisle": [goal]},
    )


def _reorder(rng: np.random.Generator) -> Said:
    sku, count = f"SKU-{between(rng, 10000, 98999)}", between(rng, 10, 900)
    if rng.random() < 0.5:
        return f"Order another {count} of {sku}, urgently.", {
            "sku": [sku], "quantity": [count], "urgent": [True],
        }  # fmt: skip
    return f"We are low on {sku}; order {count} more, no hurry.", {
        "sku": [sku], "quantity": [count], "urgent": ["", False],
    }  # fmt: skip


def _stock_level(rng: np.random.Generator) -> Said:
    sku = f"SKU-{between(rng, 10000, 98999)}"
    return pick(rng, (f"How many of {sku} do we have?", f"Look up the stock of {sku}.")), {
        "sku": [sku]
    }


def _book_visit(rng: np.random.Generator) -> Said:
    doctor, day = pick(rng, PEOPLE), pick(rng, DAYS)
    time = f"{between(rng, 13, 18)}:{pick(rng, ('00', '15', '30', '45'))}"
    return (
        f"Book me in with {doctor} on {day} at {time}.",
        {"doctor": [doctor], "day": [day], "time": [time], "minutes": ["", 20]},
    )


def _move_visit(rng: np.random.Generator) -> Said:
    visit, day = f"AP-{between(rng, 400, 9899)}", pick(rng, DAYS)
    return f"Please move my appointment {visit} to {day}.", {"visit": [visit], "day": [day]}


def _refill(rng: np.random.Generator) -> Said:
    drug = pick(rng, ("veltrin", "oxaminol", "lumacet", "prandiol", "sertacal"))
    packs = between(rng, 2, 6)
    return f"I need {packs} packs of {drug} again.", {"medicine": [drug], "packs": [packs]}


def _thermostat(rng: np.random.Generator) -> Said:
    room = pick(rng, ("kitchen", "study", "bedroom", "hall", "nursery", "workshop"))
    degrees = between(rng, 15, 25)
    return f"Set the {room} to {degrees} degrees.", {"room": [room], "celsius": [degrees]}


def _lights(rng: np.random.Generator) -> Said:
    room = pick(rng, ("kitchen", "study", "bedroom", "hall", "nursery", "workshop"))
    state = rng.random() < 0.5
    return f"Turn the {room} lights {'on' if state else 'off'}.", {"room": [room], "on": [state]}


def _timer(rng: np.random.Generator) -> Said:
    minutes, label = between(rng, 3, 55), pick(rng, ("bread", "eggs", "laundry", "tea", "oven"))
    return (
        f"Start a timer of {minutes} minutes called {label}.",
        {"minutes": [minutes], "label": [label]},
    )


SERVICES: tuple[Service, ...] = (
    Service(
        "railway",
        "You are the assistant of the valley line. Travellers write to you from the platform, so"
        " be quick: call one tool, and do not ask back when the message holds what the tool needs."
        " Names of stations are given without the word station. Weekdays are written in full, in"
        " English. Leave an optional argument out unless the traveller asked for it; second class"
        " is the usual one. Train numbers are two letters and three digits without a space.",
        (
            Tool("search_trains", "Finds trains between two stations on a weekday.",
                 {"origin": _s("Station of departure"), "destination": _s("Station of arrival"),
                  "day": _s("Weekday", enum=list(DAYS)),
                  "travel_class": _s("Default: second", enum=["first", "second"])},
                 ("origin", "destination", "day"), _search_trains),
            Tool("hold_seats", "Holds seats on one train for half an hour.",
                 {"train": _s("Train number, e.g. VL214"), "seats": _i("How many seats")},
                 ("train", "seats"), _hold_seat),
            Tool("report_lost_item", "Files a report about something left at a station.",
                 {"item": _s("What was lost, without an article"), "station": _s("Station")},
                 ("item", "station"), _lost_item),
        ),
    ),
    Service(
        "warehouse",
        "You run errands for the staff of the north warehouse. Each message asks for one thing:"
        " call the one tool that does it, with the numbers exactly as given. Article numbers begin"
        " with SKU and a hyphen. Aisles are plain numbers. An order is urgent only where the"
        " message says so; leave the argument out, or false, in every other case. Never change a"
        " quantity, and never split one order into two.",
        (
            Tool("move_stock", "Moves units of an article from one aisle to another.",
                 {"sku": _s("Article number"), "quantity": _i("Units to move"),
                  "from_aisle": _i("Aisle now"), "to_aisle": _i("Aisle afterwards")},
                 ("sku", "quantity", "from_aisle", "to_aisle"), _move_stock),
            Tool("order_stock", "Orders more units of an article.",
                 {"sku": _s("Article number"), "quantity": _i("Units to order"),
                  "urgent": {"type": "boolean", "description": "Default: false"}},
                 ("sku", "quantity"), _reorder),
            Tool("get_stock_level", "Tells how many units of an article there are.",
                 {"sku": _s("Article number")}, ("sku",), _stock_level),
        ),
    ),
    Service(
        "clinic",
        "You are the front desk of the harbour clinic. Patients write in a hurry; call one tool"
        " for each message. Doctors are named by first and last name, without a title. Weekdays"
        " are in English and in full. Times use 24 hours, as in 14:30. An appointment takes twenty"
        " minutes unless the patient asks for another length, and then the argument is left out."
        " Medicines are written in small letters.",
        (
            Tool("book_appointment", "Books an appointment with a doctor.",
                 {"doctor": _s("First and last name"), "day": _s("Weekday", enum=list(DAYS)),
                  "time": _s("24 hours, hh:mm"), "minutes": _i("Length; default: 20")},
                 ("doctor", "day", "time"), _book_visit),
            Tool("move_appointment", "Moves an appointment to another weekday.",
                 {"visit": _s("Number, e.g. AP-1234"), "day": _s("Weekday", enum=list(DAYS))},
                 ("visit", "day"), _move_visit),
            Tool("request_refill", "Asks for more packs of a medicine.",
                 {"medicine": _s("Name, small letters"), "packs": _i("How many packs")},
                 ("medicine", "packs"), _refill),
        ),
    ),
    Service(
        "home",
        "You look after a house. Whoever lives there speaks to you in passing, so never ask back:"
        " call the one tool that does what was said. Rooms are named by a single word in small"
        " letters. Temperatures are whole degrees Celsius. A timer's label is the thing it is for,"
        " one word. Lights are either on or off; there is no dimming. If two rooms seem possible,"
        " take the one that was named. Nothing else in the house is yours to switch.",
        (
            Tool("set_thermostat", "Sets the temperature of one room.",
                 {"room": _s("One word"), "celsius": _i("Whole degrees")},
                 ("room", "celsius"), _thermostat),
            Tool("switch_lights", "Turns the lights of one room on or off.",
                 {"room": _s("One word"), "on": {"type": "boolean", "description": "On or off"}},
                 ("room", "on"), _lights),
            Tool("start_timer", "Starts a kitchen timer.",
                 {"minutes": _i("Length"), "label": _s("What it is for, one word")},
                 ("minutes", "label"), _timer),
        ),
    ),
)  # fmt: skip


def tool_prompt(
    rng: np.random.Generator,
    service: Service,
    prompt_id: str,
    *,
    variant: int,
    tools: int | None = None,
    policy: str | None = None,
    before: str = "",
    **more: Any,
) -> Prompt:
    """A prompt that is to be answered with one tool call.

    Args:
        variant: which of the service's tools is the right one.
        tools: how many tools are offered, the right one among them; all where None.
        policy: the system message; the service's own where None, none where empty.
        before: what the user's message holds before the request.
    """
    wanted = service.tools[variant % len(service.tools)]
    said, arguments = wanted.say(rng)
    rest = [tool for tool in service.tools if tool is not wanted]
    offered = list(service.tools) if tools is None else [*rest[: tools - 1], wanted]
    system = service.policy if policy is None else policy
    head = [Message(role="system", content=system)] if system else []
    return Prompt(
        id=prompt_id,
        family="tool_call",
        messages=[*head, Message(role="user", content=before + said)],
        tools=[tool.schema() for tool in offered],
        reference=Reference.model_validate(
            {"tool_call": {"name": wanted.name, "arguments": arguments}}
        ),
        **more,
    )
