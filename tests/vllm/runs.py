"""Replays against the tests' cluster, and the prompts that they use."""

from __future__ import annotations

from pathlib import Path

import pytest

from clustereval.core.findings import Finding, Status
from clustereval.core.prompts import Message, Prompt, PromptLibrary, Reference, read_prompts
from clustereval.core.scenario_file import load_scenario
from clustereval.pipeline import Request, Result, run_scenario
from clustereval.rundir import Target
from serve_apps.vllm.settings import SHIPPED_MODEL
from tests.cluster.quiet import Quiet
from tests.vllm.conftest import Cluster

HERE = Path(__file__).parent
PROMPTS = HERE.parent.parent / "scenarios" / "prompts"
RECORDS, COUNTS = PROMPTS / "records.jsonl", PROMPTS / "counts.jsonl"


def replay(
    cluster: Cluster,
    application: str,
    scenario: str,
    prompts: PromptLibrary,
    folder: Path,
    *overrides: str,
) -> Result:
    """One run of ``scenario`` with ``prompts`` against an application of the cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_TOKEN", cluster.token)
        return replay_at(cluster.target(application), scenario, prompts, folder, *overrides)


def replay_at(
    target: Target, scenario: str, prompts: PromptLibrary, folder: Path, *overrides: str
) -> Result:
    """One run of ``scenario`` with ``prompts`` against ``target``."""
    folder.mkdir(exist_ok=True)
    file = folder / "prompts.jsonl"
    prompts.write(file)
    loaded = load_scenario(HERE / scenario, (f'prompt_sets.golden=["{file}"]', *overrides))
    request = Request(
        out=folder / "run",
        target=target.url,
        model=target.model,
        ray_dashboard=target.ray_dashboard,
    )
    return run_scenario(loaded, request, Quiet())


def failed(result: Result, check: str) -> list[Finding]:
    """What ``check`` failed."""
    return [f for f in result.findings.of(check) if f.gate and f.status is Status.FAIL]


def records(groups: int) -> PromptLibrary:
    """The first prefix groups of the prompts that the model knows, spread over their families."""
    by_group: dict[str, list[Prompt]] = {}
    for prompt in read_prompts(RECORDS):
        if prompt.prefix_group is not None:
            by_group.setdefault(prompt.prefix_group, []).append(prompt)
    families: dict[str, list[str]] = {}
    for group, prompts in by_group.items():
        families.setdefault(prompts[0].family, []).append(group)
    turns = [group for turn in zip(*families.values(), strict=False) for group in turn]
    return PromptLibrary([prompt for group in turns[:groups] for prompt in by_group[group]])


def of_family(family: str, count: int) -> PromptLibrary:
    """The first so many prompts of one family that the model knows."""
    known = read_prompts(RECORDS, COUNTS)
    return PromptLibrary([prompt for prompt in known if prompt.family == family][:count])


def documents(count: int, tokens: int, questions: int) -> PromptLibrary:
    """Prompts with long contexts, ``questions`` to each of ``count``: answers do not matter here.

    Args:
        tokens: about how many tokens of the shipped model each context has.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(Path(SHIPPED_MODEL) / "tokenizer.json"))
    lines = [
        line
        for prompt in read_prompts(RECORDS)
        for line in prompt.messages[0].content.splitlines()
        if "=" in line
    ]
    made = []
    for document in range(count):
        turned = lines[document * 97 :] + lines[: document * 97]
        size = len(tokenizer.encode("\n".join(turned[:50])).ids) / 50
        context = "\n".join(turned[: round(tokens / size)])
        made += [
            Prompt(
                id=f"document-{document}-{question}",
                family="qa",
                prefix_group=f"document-{document}",
                messages=[
                    Message(role="system", content=context),
                    Message(role="user", content=f"Question {question}?"),
                ],
                reference=Reference(answers=["any"]),
            )
            for question in range(questions)
        ]
    return PromptLibrary(made)
