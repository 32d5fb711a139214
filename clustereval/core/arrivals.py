"""Arrival processes as a scenario declares them; ``clustereval.load`` draws from them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from clustereval.core.strict import NonNegative, Positive, Strict


class Constant(Strict):
    """Evenly spaced arrivals."""

    process: Literal["constant"]
    rate: Positive = Field(description="requests per second, all tenants with a share together")


class Poisson(Strict):
    """Independent arrivals: exponential gaps."""

    process: Literal["poisson"]
    rate: Positive = Field(description="requests per second, in the mean")


class Gamma(Strict):
    """Gamma-distributed gaps: burstier than Poisson where ``burstiness`` exceeds 1."""

    process: Literal["gamma"]
    rate: Positive = Field(description="requests per second, in the mean")
    burstiness: Positive = Field(description="squared coefficient of variation of the gaps")


class Ramp(Strict):
    """Poisson arrivals whose rate goes linearly from one value to another."""

    process: Literal["ramp"]
    start_rate: NonNegative = Field(description="requests per second at the start")
    end_rate: Positive = Field(description="and at the end")


class Spike(Strict):
    """Poisson arrivals at a base rate, with a higher rate for a while in every period."""

    process: Literal["spike"]
    rate: NonNegative = Field(description="rate between the spikes")
    peak_rate: Positive = Field(description="rate within them")
    peak_s: Positive = Field(description="how long each spike lasts")
    every_s: Positive = Field(description="from one spike's start to the next")
    first_s: NonNegative = Field(0.0, description="when the first spike starts")

    @model_validator(mode="after")
    def _peak_fits(self) -> Self:
        if self.peak_s > self.every_s:
            raise ValueError("peak_s must not exceed every_s")
        return self


class Steps(Strict):
    """One rate after another, each for an equal part of the phase: to find the highest that holds.

    Give ``rates``, or ``start_rate``, ``end_rate`` and ``steps``. The requests of a stepped phase
    are judged step by step, and enter no other check of load: some are meant to be too many.
    """

    process: Literal["steps"]
    rates: list[Positive] | None = Field(
        None, min_length=1, description="requests per second of each step, in turn"
    )
    start_rate: Positive | None = Field(None, description="or: of the first step")
    end_rate: Positive | None = Field(None, description="of the last one")
    steps: int | None = Field(None, ge=2, le=1000, description="how many, evenly spaced in rate")
    spacing: Literal["poisson", "constant"] = Field(
        "poisson", description="`poisson`: independent arrivals; `constant`: evenly spaced ones"
    )
    lead_s: NonNegative = Field(
        0.0,
        description="at the start of each step requests are sent that its goodput leaves out: "
        "while the autoscaler catches up with the new rate",
    )
    rest_s: NonNegative = Field(
        0.0,
        description="at the end of each step nothing is sent for so long, so that what it left "
        "over does not meet the next one",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        spaced = (self.start_rate, self.end_rate, self.steps)
        if self.rates is not None and any(value is not None for value in spaced):
            raise ValueError("give rates, or start_rate, end_rate and steps, not both")
        if self.rates is None and any(value is None for value in spaced):
            raise ValueError("give rates, or all of start_rate, end_rate and steps")
        return self

    @property
    def each(self) -> tuple[float, ...]:
        """The rate of every step, in turn."""
        if self.rates is not None:
            return tuple(self.rates)
        assert self.start_rate is not None  # held by the validation
        assert self.end_rate is not None
        assert self.steps is not None
        rise = (self.end_rate - self.start_rate) / (self.steps - 1)
        return tuple(self.start_rate + rise * index for index in range(self.steps))

    def step_s(self, duration_s: float) -> float:
        """How long one step lasts, its rest included, in a phase so long."""
        return duration_s / len(self.each)

    def judged_s(self, duration_s: float) -> float:
        """For how long of a step requests are sent and judged."""
        return self.step_s(duration_s) - self.lead_s - self.rest_s


Arrivals = Annotated[
    Constant | Poisson | Gamma | Ramp | Spike | Steps, Field(discriminator="process")
]
