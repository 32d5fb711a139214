"""``python -m scenarios.golden [FOLDER [SEED]]`` writes the golden set."""

from __future__ import annotations

import sys
from pathlib import Path

from scenarios.golden import SEED, write_golden

DEFAULT = Path(__file__).resolve().parents[1] / "prompts"

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else SEED
    for name, count in write_golden(folder, seed).items():
        print(f"{name}: {count} prompts")
