"""``clustereval init``: a scenario and prompts of one's own to start from."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from clustereval.cli.scenarios import find_scenario
from clustereval.core.errors import RunFolderError
from clustereval.core.shipped import scenarios_dir


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=Path("scenarios"))
@click.option("--scenario", "name", default="prelaunch", show_default=True, help="Which to copy.")
def init(folder: Path, name: str) -> None:
    """Copy a shipped scenario and the golden set to FOLDER, to be changed there."""
    source = find_scenario(name)
    target = folder / source.name
    prompts = folder / "prompts"
    for path in (target, prompts):
        if path.exists():
            raise RunFolderError(
                f"{path}: exists", expected="nothing there", change="choose another FOLDER"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        for beside in ("scenario.schema.json", "locustfile.py"):
            shutil.copy(scenarios_dir() / beside, folder)
        prompts.mkdir()
        for file in sorted((scenarios_dir() / "prompts").glob("*.jsonl")):
            shutil.copy(file, prompts)
    except OSError as error:
        raise RunFolderError(f"{folder}: cannot be written: {error}") from None
    click.echo(f"{target}   the scenario: rates, tenants, what must hold")
    click.echo(f"{prompts}/   the golden set; put your own prompts beside it, same format")
    click.echo(f"\nNext: clustereval run {target} --target https://your-cluster/v1")
