"""Version of the code that fits models. It is part of a challenger's fingerprint, so raising it retrains every period.

Raise `FIT_VERSION` (any new text) when the modules in `FITTING_MODULES` would fit another model, find another cut or
compute another metric from the same data and declaration. A test compares the modules with the digests in
`mlops_assets_tests/training/fit_waivers.txt`, and fails when one was edited. When the edit changes no fit
(a refactoring, a message, a key with the old behaviour at its default), record that, once per edit, with its reason:

    python -m mlops_assets_tests.training.test_fit_version "why fits don't change" >> \
        mlops_assets_tests/training/fit_waivers.txt

Record it after a raise, too: "FIT_VERSION was raised". Versions of libraries are recorded with each model
(`registry.requirements`), but are not part of the fingerprint: an upgrade doesn't retrain what was decided.
"""

from __future__ import annotations

# The first value is the digest of these modules that fingerprints held before this number: they stay valid.
FIT_VERSION = "7216cd1520db11bc"

# The modules that can change a fitted model or its cut. Pictures and registry code are not among them.
FITTING_MODULES = ("candidates.py", "encoding.py", "metrics.py", "pipeline.py", "scored_rows.py", "search.py")
