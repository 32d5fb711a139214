"""Environments for the peers: one each, outside this repository, made once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.peer_clients import Peer

INSTALL_S: Final = 900.0
NEEDED_BYTES: Final = 8 * 10**9
_DONE: Final = "installed.txt"
_TOKENIZER: Final = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = ["<unk>", "<s>", "</s>", *(f"w{i}" for i in range(2000))]
made = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
PreTrainedTokenizerFast(
    tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
).save_pretrained(sys.argv[1])
"""


class SkipError(Exception):
    """A peer that cannot be measured here: why."""


def cache() -> Path:
    """Where the environments are."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "clustereval-peers"


def install(peer: Peer) -> Path:
    """The ``bin`` of the peer's environment; made where it is not there yet.

    Raises:
        SkipError: no Python of its version, no space, or pip failed.
    """
    folder = cache() / peer.name.lower().replace(" ", "-")
    done = folder / _DONE
    wanted = "\n".join(peer.packages)
    if done.is_file() and done.read_text() == wanted:
        return folder / "bin"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if (free := shutil.disk_usage(folder).free) < NEEDED_BYTES:
        raise SkipError(f"{free / 1e9:.0f} GB free in {cache()}, wanted {NEEDED_BYTES / 1e9:.0f}")
    _run([_python(peer), "-m", "venv", str(folder)])
    print(f"installing {', '.join(peer.packages)} …", file=sys.stderr, flush=True)
    _run([str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", *peer.packages])
    done.write_text(wanted)
    return folder / "bin"


def tokenizer(bin_folder: Path) -> Path:
    """A tokenizer of some words, made with a peer's own libraries: there is no hub to ask.

    Raises:
        SkipError: it cannot be made.
    """
    folder = cache() / "tokenizer"
    if not (folder / "tokenizer_config.json").is_file():
        _run([str(bin_folder / "python"), "-c", _TOKENIZER, str(folder)])
    return folder


def _python(peer: Peer) -> str:
    if sys.version_info[:2] >= peer.python:
        return sys.executable
    least = peer.python[1]
    for minor in range(least, least + 4):
        if (found := shutil.which(f"python3.{minor}")) and _works(found):
            return found
    raise SkipError(f"it needs Python 3.{least}, and there is none on PATH")


def _works(python: str) -> bool:
    """A name on PATH may be a shim of a version that is not chosen."""
    return subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise SkipError(f"not installed within {INSTALL_S:.0f} s") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1]
        raise SkipError(f"not installed: {said}")
