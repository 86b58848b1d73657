"""An edit of the fitting modules either raises `FIT_VERSION` or records why fits don't change.

`python -m mlops_assets_tests.training.test_fit_version REASON` prints the lines that are missing in `fit_waivers.txt`.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from mlops_assets import training
from mlops_assets.training.fit_version import FIT_VERSION, FITTING_MODULES

WAIVERS = Path(__file__).with_name("fit_waivers.txt")


def _contents() -> set[tuple[str, ...]]:
    """(FIT_VERSION, module, digest of its bytes) of each fitting module."""
    folder = Path(training.__file__).parent
    return {
        (FIT_VERSION, name, hashlib.sha256((folder / name).read_bytes()).hexdigest()[:16]) for name in FITTING_MODULES
    }


def _recorded() -> dict[tuple[str, ...], str]:
    """(FIT_VERSION, module, digest) → reason."""
    lines = [line.split(maxsplit=3) for line in WAIVERS.read_text().splitlines() if not line.startswith("#")]
    return {(version, module, digest): reason for version, module, digest, reason in lines}


def _missing() -> list[tuple[str, ...]]:
    return sorted(_contents() - _recorded().keys())


def test_an_edit_of_the_fitting_modules_raises_the_fit_version_or_records_why_fits_stay():
    changed = [f"{module} ({digest})" for _, module, digest in _missing()]
    assert not changed, f"{', '.join(changed)} changed. What to do: see mlops_assets/training/fit_version.py"


def test_every_module_that_can_change_a_model_is_a_fitting_module():
    """What search imports from this package is fitting code; a new module must be listed."""
    code = (
        "import sys; from mlops_assets.training import search, encoding; p = 'mlops_assets.training.';"
        "print(*sorted(m.removeprefix(p) + '.py' for m in sys.modules if m.startswith(p)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert tuple(done.stdout.split()) == FITTING_MODULES


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit('usage: python -m mlops_assets_tests.training.test_fit_version "why fits don\'t change"')
    for line in _missing():
        print(*line, " ".join(sys.argv[1].split()))
