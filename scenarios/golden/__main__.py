"""``python -m scenarios.golden [FOLDER]`` writes the golden set."""

from __future__ import annotations

import sys
from pathlib import Path

from scenarios.golden import write_golden

DEFAULT = Path(__file__).resolve().parents[1] / "prompts"

if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    for name, count in write_golden(folder).items():
        print(f"{name}: {count} prompts")
