"""Seeded, bounded searches for inputs that end otherwise than in a result or a clear refusal: `make test-fuzz`.

`MLOPS_FUZZ_SEED` chooses another seed, `MLOPS_FUZZ_CASES` another number of cases. Each test prints what it counted.
"""

from __future__ import annotations

import os

SEED = int(os.environ.get("MLOPS_FUZZ_SEED") or 20210101)
CASES = int(os.environ.get("MLOPS_FUZZ_CASES") or 1000)
