"""How a conversation becomes text: the chat template, and the same in Python for training.

One token says whose turn begins, ``<|end|>`` ends it; nothing stands between a turn's mark and its
text, so that a key or a value is the same token there as on a line of the sheet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

BEGIN, END, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ROLES: Final = ("system", "user", "assistant", "tool")
MARKS: Final = (PAD, BEGIN, END, *(f"<|{role}|>" for role in ROLES))
"""Special tokens, in the order of their ids."""
TOOL_CALL: Final = ("<tool_call>", "</tool_call>")
"""Tokens too, but not special: a tool parser reads them in the text."""

TEMPLATE: Final = """\
{{- '<|begin|>' -}}
{%- if tools -%}
  {{- '<|system|>' -}}
  {%- for tool in tools -%}
    {%- set function = tool.function if tool.function is defined else tool -%}
    {%- set properties = (function.parameters or {}).get('properties') or {} -%}
    {{- function.name + '(' + (properties | list | join(',')) + ')\\n' -}}
  {%- endfor -%}
  {{- '<|end|>' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- set role = message.role if message.role in ('user', 'assistant', 'tool') else 'system' -%}
  {{- '<|' + role + '|>' + (message.content or '') -}}
  {%- for call in message.tool_calls or [] -%}
    {%- set function = call.function if call.function is defined else call -%}
    {%- set arguments = function.arguments or {} -%}
    {{- '<tool_call>{"name":"' + function.name + '","arguments":' -}}
    {%- if arguments is string -%}
      {{- arguments -}}
    {%- else -%}
      {{- arguments | tojson(separators=(',', ':')) -}}
    {%- endif -%}
    {{- '}</tool_call>' -}}
  {%- endfor -%}
  {{- '<|end|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|assistant|>' -}}
{%- endif -%}
"""


def turn(role: str, text: str) -> str:
    """One message."""
    return f"<|{role}|>{text}{END}"


def render(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """What :data:`TEMPLATE` gives for messages with text alone; training needs it fast."""
    head = turn("system", "".join(map(signature, tools))) if tools else ""
    said = "".join(turn(message["role"], message["content"]) for message in messages)
    return BEGIN + head + said + ("<|assistant|>" if add_generation_prompt else "")


def signature(tool: Mapping[str, Any]) -> str:
    """A tool as the template shows it: ``dispatch(parcel,town,carrier)`` and a line's end."""
    function = tool["function"]
    return f"{function['name']}({','.join(function['parameters']['properties'])})\n"
