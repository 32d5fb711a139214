"""How faults are declared and asked for: ``NAME[=STRENGTH]``. Each app declares its own.

A fault is here so that its own check can be seen to fail. Declared without importing Ray or vLLM,
so that a command line can list them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from clustereval.core.errors import ScenarioError

Unit = Literal["share", "seconds", "deviations", "tokens", "blocks", "sequences"]
_UPPER: Final[dict[Unit, float]] = {
    "share": 1.0,
    "seconds": 3600.0,
    "deviations": 10.0,
    "tokens": 1e6,
    "blocks": 1e6,
    "sequences": 1e4,
}
_WHOLE: Final = frozenset({"tokens", "blocks", "sequences"})


@dataclass(frozen=True)
class Fault:
    """The declaration of one fault.

    Attributes:
        default: strength where none is given.
        unit: what the strength is a number of.
        failed_by: the check that is expected to find it.
        summary: what happens, in half a sentence.
    """

    name: str
    default: float
    unit: Unit
    failed_by: str
    summary: str

    @property
    def line(self) -> str:
        """For a help text: how to ask for it, and what it does."""
        return f"{self.name}[={self.default:g}]  {self.summary}"

    def strength(self, given: float | str | None) -> float:
        """``given`` as a number of :attr:`unit`; the default where nothing is given.

        Raises:
            ScenarioError: it is no such number, or out of range.
        """
        try:
            strength = self.default if given is None else float(given)
        except ValueError:
            strength = math.nan
        upper = _UPPER[self.unit]
        whole = self.unit in _WHOLE
        if not 0 < strength <= upper or (whole and strength != int(strength)):
            raise ScenarioError(
                f"fault {self.name}: found strength {given!r}",
                expected=f"a {'whole ' if whole else ''}number of {self.unit},"
                f" above 0 and at most {upper:g}",
                change=f"--fault {self.name}={self.default:g}, or drop the strength",
            )
        return strength


Catalogue = Mapping[str, Fault]


def catalogue(*faults: Fault) -> dict[str, Fault]:
    """The faults of an app, by name."""
    return {fault.name: fault for fault in faults}


def parse_faults(specs: Iterable[str], known: Catalogue) -> dict[str, float]:
    """``NAME[=STRENGTH]`` items as name → strength.

    Raises:
        ScenarioError: an unknown name (lists the known ones) or a strength out of its range.
    """
    split = (spec.partition("=") for spec in specs)
    return check_faults({name: text or None for name, _, text in split}, known)


def check_faults(faults: Mapping[str, float | str | None], known: Catalogue) -> dict[str, float]:
    """Name → strength with the defaults filled in; raises as :func:`parse_faults`."""
    checked: dict[str, float] = {}
    for name, given in faults.items():
        fault = known.get(name)
        if fault is None:
            lines = "\n".join(f"          {other.line}" for other in known.values())
            raise ScenarioError(f"unknown fault {name!r}", expected=f"one of\n{lines}")
        checked[name] = fault.strength(given)
    return checked
