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


Arrivals = Annotated[Constant | Poisson | Gamma | Ramp | Spike, Field(discriminator="process")]
