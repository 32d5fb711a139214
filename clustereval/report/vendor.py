"""Where the bundle that draws the figures is from, and how to take a newer one.

The page must work without a network and stay under 3 MB. plotly's full bundle is larger, and the
one inside the plotly wheel is that one, so the partial bundle ``plotly.js-basic-dist-min`` (MIT;
scatter and bar) is kept in the repository beside its licence. A test holds its hash.

``python -m clustereval.report.vendor`` fetches ``VERSION`` with npm and says when the hash is new.
"""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = "plotly.js-basic-dist-min"
VERSION: Final = "4.1.1"
BUNDLE: Final = "plotly-basic.min.js"
LICENCE: Final = "plotly-basic.LICENSE.txt"
SHA256: Final = "99784e3abfb07b142a15e521a439e6d9addceadb3f79553fd24c72774f0649ba"
TEMPLATE: Final = Path(__file__).parent / "template"


def fetch(to: Path = TEMPLATE) -> str:
    """Takes the bundle and its licence from npm into ``to``; returns the bundle's SHA-256."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", f"{PACKAGE}@{VERSION}", "--silent"], cwd=folder, check=True, timeout=300
        )
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            for member, name in ((BUNDLE, BUNDLE), ("LICENSE", LICENCE)):
                file = archive.extractfile(f"package/{member}")
                assert file is not None
                (to / name).write_bytes(file.read())
    return hashlib.sha256((to / BUNDLE).read_bytes()).hexdigest()


if __name__ == "__main__":
    found = fetch()
    print(f"{BUNDLE} {VERSION}: {found}")
    if found != SHA256:
        print("the hash is new: look at the change, then put it into this file")
