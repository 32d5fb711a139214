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


class _OfTrace(Strict):
    file: str = Field(
        min_length=1,
        description="the trace, relative to the scenario file; its format is told from its content",
    )
    from_s: NonNegative = Field(
        0.0, description="where the part that is used begins, in seconds of the trace"
    )
    speed: Positive = Field(
        1.0, description="seconds of the trace in one second of the run: 2 halves every gap"
    )
    rate: Positive | None = Field(
        None, description="requests per second, in the mean; the trace's own (times speed) if unset"
    )


class Trace(_OfTrace):
    """The requests of a trace: its times, and prompts and answers of its lengths."""

    process: Literal["trace"]
    tenants: dict[str, str] = Field(
        default_factory=dict,
        description="the trace's own label (model, service, tenant) → tenant; others by share",
    )
    lengths: bool = Field(
        True,
        description="prompts are padded to the traced length; false: the golden prompts as they"
        " are, at the traced times",
    )
    max_input_tokens: int | None = Field(
        None, gt=0, description="longer prompts are cut to it: they keep their first blocks"
    )
    output: Literal["own", "limit", "exact"] = Field(
        "limit",
        description="`own`: the prompt's own max_tokens; `limit`: max_tokens is the traced length;"
        " `exact`: answers are forced to it (min_tokens and ignore_eos: vLLM, SGLang), which runs"
        " them on past their end and spoils scores",
    )
    least_max_tokens: int = Field(
        64, gt=0, description="with `limit`, no less: a shorter limit would cut right answers off"
    )


class LikeTrace(_OfTrace):
    """As bursty as a trace: arrivals drawn from a process that is fitted to it.

    Gamma gaps, whose squared coefficient of variation is the trace's, in a time that runs at the
    trace's rate, window by window.
    """

    process: Literal["like_trace"]
    window_s: Positive | None = Field(
        None,
        description="the rate is constant within windows so long, in seconds of the trace; as long"
        " as 10 requests take if unset",
    )


FromTrace = Trace | LikeTrace

Arrivals = Annotated[
    Constant | Poisson | Gamma | Ramp | Spike | Steps | Trace | LikeTrace,
    Field(discriminator="process"),
]
