"""A scenario file as plain data: YAML read, ``--set`` applied. Knows nothing of what it means."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from clustereval.core.errors import ScenarioError


class _Loader(yaml.SafeLoader):
    """Safe YAML, with the floats of YAML 1.2: to YAML 1.1 `1e3` is a text.

    A key that stands twice is refused: PyYAML would silently take the second.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} stands there twice", key.start_mark
                )
            if name is not None:
                seen.add(name)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+"),
    list("-+.0123456789"),
)


class _UnreadableError(Exception):
    """What YAML allows and Python cannot hold."""


def _load(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise _UnreadableError("nested too deeply") from None
    except ValueError as error:  # 5,000 digits, the 31st of February
        raise _UnreadableError(f"a value that cannot be: {error}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a file holds; raises :class:`ScenarioError` with the line."""
    try:
        data = _load(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ScenarioError(f"{path}: no such scenario file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError(f"{path}: cannot be read: {error}") from None
    except _UnreadableError as error:
        raise ScenarioError(f"{path}: {error}", expected="a scenario's few levels") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or error
        raise ScenarioError(f"{path}{line}: malformed YAML: {problem}") from None
    if not isinstance(data, dict):
        found = "is empty" if data is None else f"found {type(data).__name__}"
        raise ScenarioError(f"{path}: {found}", expected="a mapping with name, phases, …")
    return data


def apply_override(data: dict[str, Any], override: str) -> None:
    """Changes ``data`` in place as ``PATH=VALUE`` says; raises :class:`ScenarioError`."""
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise ScenarioError(
            f"--set {override}: found no PATH=VALUE", expected="e.g. phases.burst.duration_s=20"
        )
    try:
        value = _load(text)
    except (yaml.YAMLError, _UnreadableError) as error:
        raise ScenarioError(f"--set {override}: the value is not YAML: {error}") from None
    *parents, last = path.split(".")
    node: Any = data
    for part in parents:
        node = _step(node, part, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ScenarioError(f"--set {override}: {'.'.join(parents)} holds no keys")


def write_overridden(source: Path, overrides: Iterable[str], target: Path) -> None:
    """Writes the scenario file ``source`` with ``PATH=VALUE`` applied; comments are lost.

    Prompt files and traces are named from ``target``'s folder, so that both files mean the same.

    Raises:
        ScenarioError: there is a file already, or it cannot be written.
    """
    data = read_yaml(source)
    for override in overrides:
        apply_override(data, override)
    # By the real path: a link's `..` leads elsewhere.
    base = target.parent.resolve()

    def moved(file: str) -> str:
        return Path(os.path.relpath((source.parent / file).resolve(), base)).as_posix()

    data["prompt_sets"] = {
        name: moved(files) if isinstance(files, str) else [moved(file) for file in files]
        for name, files in data["prompt_sets"].items()
    }
    for phase in data.get("phases") or ():
        if isinstance(arrivals := phase.get("arrivals"), dict) and "file" in arrivals:
            arrivals["file"] = moved(arrivals["file"])
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=100)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ScenarioError(
            f"{target}: exists", expected="nothing there", change="choose another --out"
        ) from None
    except OSError as error:
        raise ScenarioError(f"{target}: cannot be written: {error.strerror or error}") from None


def _step(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, part, override)]
    if isinstance(node, dict):
        if node.get(part) is None:
            node[part] = {}
        return node[part]
    raise ScenarioError(f"--set {override}: nothing below {part!r} can be set")


def _index(items: list[Any], part: str, override: str) -> int:
    named = [
        i for i, item in enumerate(items) if isinstance(item, dict) and item.get("name") == part
    ]
    if named:
        return named[0]
    if part.isdigit() and int(part) < len(items):
        return int(part)
    known = [str(item.get("name")) for item in items if isinstance(item, dict) and "name" in item]
    raise ScenarioError(
        f"--set {override}: no item {part!r}",
        expected=f"one of {', '.join(known) or 'the indices'}",
    )
