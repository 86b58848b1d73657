"""`python -m benchmarks [--quick] [NAME...]`: measure, print, and write docs/benchmarks.md."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from datetime import date
from importlib import import_module, metadata

import click

from benchmarks.measurement import HEADER, Measurement
from benchmarks.process import PROJECT

NAMES = ("startup", "drift", "month", "backfill", "histories", "memory", "scale", "large", "demo")
ONLY_BY_NAME = ("large",)
DOCUMENT = PROJECT / "docs" / "benchmarks.md"
INTRODUCTION = """\
# Speed and memory

Written by `make bench` (`python -m benchmarks`, or one of its sections by name); not edited by hand. Every figure was
measured on the machine that its section names. Ratios are taken within one run, in turns, so that the machine's
other work slows both sides alike.
"""
PACKAGES = ("dagster", "mlflow", "duckdb", "interpret-core", "optuna", "evidently", "scikit-learn", "numpy", "pandas")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(NAMES))
@click.option("--quick", is_flag=True, help="Less data, fewer repetitions, nothing written: does it run at all?")
def main(names: Sequence[str], quick: bool) -> None:
    """Measure the benchmarks NAMES, by default all but `large`, and write their sections of docs/benchmarks.md.

    Exits with 1 when a target was missed.
    """
    missed = False
    for name in names or [name for name in NAMES if name not in ONLY_BY_NAME]:
        module = import_module(f"benchmarks.{name}")
        click.echo(f"\n{module.TITLE} ({name}) ...", err=True)
        started, load = time.perf_counter(), os.getloadavg()[0]
        found: list[Measurement] = module.run(quick)
        footer = (
            f"{_machine()} Measured on {date.today()} in {time.perf_counter() - started:.0f} s, while other work kept "
            f"{load:.1f} processes busy."
        )
        section = _section(module.TITLE, module.METHOD, found, footer)
        click.echo(section)
        missed = missed or any(one.reached is False for one in found)
        if not quick:
            _write(module.TITLE, section)
    sys.exit(1 if missed and not quick else 0)


def _section(title: str, method: str, found: Sequence[Measurement], footer: str) -> str:
    lines = [f"| {' | '.join(HEADER)} |", "| --- | ---: | ---: | --- |"]
    lines += [f"| {' | '.join(one.cells())} |" for one in found]
    table = "\n".join(lines)
    return f"## {title}\n{method}\n\n{table}\n\n_{footer}_\n"


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{package} {metadata.version(package)}" for package in PACKAGES)
    return (
        f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GB, {platform.system()}; "
        f"Python {platform.python_version()}, {versions}."
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:  # noqa: PTH123 - not a file to be read whole
            found = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
    except OSError:
        found = ""
    return found or platform.machine()


def _write(title: str, section: str) -> None:
    """Put the section in the place of the earlier one of that title; the others stay as they are."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    known = {part.splitlines()[0]: part.rstrip() + "\n" for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]}
    known[title] = section.removeprefix("## ")
    order = [import_module(f"benchmarks.{name}").TITLE for name in NAMES]
    body = "\n".join(f"## {known[one]}" for one in order if one in known)
    DOCUMENT.parent.mkdir(parents=True, exist_ok=True)
    partial = DOCUMENT.with_name(f".{DOCUMENT.name}.tmp")
    partial.write_text(f"{INTRODUCTION}\n{body}")
    partial.replace(DOCUMENT)


if __name__ == "__main__":
    main()
