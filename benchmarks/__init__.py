"""Speed and memory of the platform, as ratios within one run: `make bench`, or `python -m benchmarks NAME...`.

Each benchmark is a module with a function `run(quick) -> list[Measurement]`. What is measured runs in a process of
its own with a fresh MLOPS_HOME below a temporary folder. The results go to docs/benchmarks.md, one section each.
"""
