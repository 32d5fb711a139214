"""What users do beyond one request, as a scenario declares it: converse, and hang up."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from clustereval.core.strict import NonNegative, Positive, Ratio, Strict

TURN_FAILED: Final = "turn_failed"
"""``error_type`` of a turn that was not sent, since the turn before it got no answer."""

ANSWERS: Final = "answers"
"""In the column ``history``: the earlier turns' answers are the model's own."""


class Sessions(Strict):
    """Each arrival is a user, who asks the turns of one conversation, one after the other.

    A conversation is the prompts of a set that share a ``session_id``, in the order of ``turn``;
    prompts without one take no part. A turn is due when its user has thought, ``think_s`` in the
    mean, after the end of the answer before it. Where a turn gets no answer, its user gives up: the
    later turns are not sent, and count as failed with it.
    """

    think_s: NonNegative = Field(
        5.0, description="mean time from the end of an answer to the user's next turn"
    )
    think_cv: NonNegative = Field(
        1.0,
        description="coefficient of variation of the think times, which are gamma-distributed: "
        "0 always the mean, 1 exponential",
    )
    history: Literal["reference", "answers"] = Field(
        "reference",
        description="what later turns are told was answered before. `reference`: what the prompt "
        "file says, so that a turn can be compared with its idle answer; `answers`: what the model "
        "did answer in this conversation, so that later turns are compared with no idle answer",
    )


class Cancel(Strict):
    """Clients that hang up in mid-stream.

    Who does, and when, is drawn before the run. Requests so planned are left out of E2E and of the
    scores even where their answer was faster than the hanging up: leaving out only those that were
    cut would leave the fast ones in.
    """

    share: Ratio = Field(description="of the phase's requests")
    within_s: Positive = Field(
        description="they hang up at a moment between the first token and so long after it, "
        "uniformly drawn"
    )
