"""The built-in scorers, one small file each; :data:`BUILT_IN` lists them."""

from clustereval.scoring.scorer import Scorer
from clustereval.scoring.scorers.correct import correct
from clustereval.scoring.scorers.degeneration import degeneration
from clustereval.scoring.scorers.exact_match import exact_match
from clustereval.scoring.scorers.fidelity import fidelity, fidelity_prefix
from clustereval.scoring.scorers.groundedness import groundedness
from clustereval.scoring.scorers.instructions import instructions
from clustereval.scoring.scorers.json_schema import json_schema
from clustereval.scoring.scorers.json_value import json_value
from clustereval.scoring.scorers.token_f1 import token_f1
from clustereval.scoring.scorers.tool_call import tool_call_lenient, tool_call_strict
from clustereval.scoring.scorers.truncation import truncation

BUILT_IN: tuple[Scorer, ...] = (
    correct,
    exact_match,
    token_f1,
    json_schema,
    json_value,
    tool_call_strict,
    tool_call_lenient,
    instructions,
    groundedness,
    degeneration,
    truncation,
    fidelity,
    fidelity_prefix,
)
