"""``json_schema``: whether the answer meets the reference's JSON Schema."""

from __future__ import annotations

import json
from collections import Counter
from functools import lru_cache
from itertools import islice
from typing import Any

import jsonschema_rs

from clustereval.scoring.scorer import RIGHT, Example, Score, scorer, wrong
from clustereval.scoring.text import parse_json, shorten

_MOST_ERRORS = 20


@scorer("json_schema", "1", needs={"json_schema"})
def json_schema(example: Example) -> Score:
    """1 where the answer is JSON that meets the schema; else 0, the reason saying why.

    The reason begins with ``parse`` (no JSON at all) or with the schema's keywords that were not
    met, most frequent first: ``type``, ``required``, ``enum``, ``additionalProperties``, …
    Validated by the ``jsonschema-rs`` package, draft as the schema's ``$schema`` says (2020-12
    where it says none); references to other documents are not fetched.
    """
    try:
        value = parse_json(example.output_text)
    except ValueError as error:
        return wrong(f"parse: {shorten(error)}")
    validator = _validator(json.dumps(example.reference.json_schema, sort_keys=True))
    try:
        # A hostile answer can break the same rule very often: the first errors are enough.
        errors = list(islice(validator.iter_errors(value), _MOST_ERRORS))
    except (ValueError, RecursionError) as error:  # e.g. a lone surrogate, or too deep a nesting
        return wrong(f"parse: {shorten(error)}")
    if not errors:
        return RIGHT
    kinds = Counter(str(error.kind.name) for error in errors)
    where = "/".join(str(part) for part in errors[0].instance_path) or "the value"
    keywords = ", ".join(kind for kind, _ in kinds.most_common())
    return wrong(f"{keywords}: {shorten(where)}: {shorten(errors[0].message)}")


@lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    """Compiled once per schema: that takes longer than to validate an answer."""
    return jsonschema_rs.validator_for(json.loads(schema), offline=True)
