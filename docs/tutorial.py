"""Follow docs/tutorial.md, and write its outputs anew.

    python docs/tutorial.py

Works in a copy of the project, by what the document itself says: fenced blocks below an invisible marker are acted on
in order. Paths of the copy are shown as relative ones; nothing else of an output is changed.

<!-- file: PATH -->              the block is written to PATH
<!-- run -->                     the block is run by bash
<!-- run with PATH: OLD => NEW -->   the same, with a mistake put into the file before and taken out again afterwards
<!-- output -->                  what the block before it printed
<!-- lines --> … <!-- /lines -->  how many lines the model took, counted
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DOCUMENT = PROJECT / "docs" / "tutorial.md"
COUNTED_IN = (DOCUMENT, PROJECT / "README.md")
OWN_PROJECT = "## In a project of your own"
MODEL = Path("mlops_assets/defs/late_parcels")
BLOCK = re.compile(r"<!-- (?P<marker>file|run|output)(?P<argument>[^\n]*?) -->\n```\w+\n(?P<body>.*?)```\n", re.DOTALL)
COUNT = re.compile(r"(<!-- lines -->)(.*?)(<!-- /lines -->)", re.DOTALL)
MISTAKE = re.compile(r"with (?P<path>\S+): (?P<old>.+) => (?P<new>.+)")


class DoesNotWork(AssertionError):
    """A command of the document ended otherwise than it should."""


@dataclass
class Followed:
    """What came of following: each command's output as printed and as shown, and the files as the scaffold wrote them.

    Outputs are keyed by where the shown one stands in the document's text.
    """

    outputs: dict[tuple[int, int], tuple[str, str]] = field(default_factory=dict)
    drafted: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)


def parts() -> tuple[str, str]:
    """The document's text up to the section on a project of one's own, and that section."""
    before, heading, after = DOCUMENT.read_text().partition(OWN_PROJECT)
    return before, heading + after


def copied(folder: Path) -> Path:
    """A copy of the project's code, of what is in git where there is git: no model of your own is in the way."""
    files = [PROJECT / name for name in ("README.md", "pyproject.toml", "setup.cfg", "workspace.yaml")]
    files += [path for path in (PROJECT / "mlops_assets").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    if (PROJECT / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True)
        known = {PROJECT / name for name in listed.stdout.split("\0")}
        files = [path for path in files if path in known]
    for path in files:
        target = folder / path.relative_to(PROJECT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    return folder


def with_data_of(code: Path, folder: Path) -> Path:
    """A folder that has nothing but the made-up parcels, as the section on a project of one's own supposes."""
    shutil.copytree(code / "data" / "late_parcels", folder / "data" / "late_parcels")
    return folder


def environment(code: Path) -> dict[str, str]:
    """That of a person who has activated the project's environment, whose code is `code`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLOPS_", "DAGSTER_HOME"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    quiet = {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "DAGSTER_DISABLE_TELEMETRY": "true"}
    return {**kept, **quiet, "PATH": path, "PYTHONPATH": str(code), "COLUMNS": "120", "NO_COLOR": "1"}


def follow(text: str, folder: Path, code: Path) -> Followed:
    """Do what the text says, in the folder. Raises DoesNotWork."""
    result, printed = Followed(), ""
    for block in BLOCK.finditer(text):
        argument, body = block["argument"].strip(": "), block["body"]
        if block["marker"] == "file":
            path = folder / argument
            if path.exists():
                result.drafted[argument] = path.read_text()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(body)
            result.written[argument] = body
        elif block["marker"] == "run":
            printed = _run(body, argument, folder, code)
        else:
            result.outputs[block.span("body")] = (printed, body)
    return result


def _run(command: str, argument: str, folder: Path, code: Path) -> str:
    mistake = MISTAKE.fullmatch(argument)
    if mistake is not None:
        path = folder / mistake["path"]
        right = path.read_text()
        if right.count(mistake["old"]) != 1:
            raise DoesNotWork(f"{path} has {mistake['old']!r} {right.count(mistake['old'])} times; once is expected")
        path.write_text(right.replace(mistake["old"], mistake["new"]))
    done = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=environment(code),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if mistake is not None:
        path.write_text(right)
    # A mistake is told by those that fail for it, and a pipe has the status of its end.
    if (done.returncode != 0) != (mistake is not None and "|" not in command):
        raise DoesNotWork(f"{command}ended with status {done.returncode}:\n{done.stdout}")
    printed = done.stdout.replace(f"{folder}/", "")
    for place in (str(PROJECT), sys.prefix):
        if place in printed:
            raise DoesNotWork(f"{command}prints a path of this machine, {place}:\n{printed}")
    return "".join(f"{line.rstrip()}\n" for line in printed.splitlines()).strip("\n") + "\n"


def lines(text: str) -> list[str]:
    """The lines that say something: neither empty nor a comment; without the remarks behind them."""
    said = (re.sub(r"\s+(#|--) .*", "", line).rstrip() for line in text.splitlines())
    return [line for line in said if line and not line.lstrip().startswith(("#", "--"))]


def counted(followed: Followed) -> str:
    """How many lines the model took, in words."""
    took, by_hand = {}, 0
    for kind in ("defs.yaml", "features.sql"):
        name = str(MODEL / kind)
        took[kind] = lines(followed.written[name])
        before = lines(followed.drafted[name])
        changes = difflib.SequenceMatcher(None, before, took[kind], autojunk=False).get_opcodes()
        by_hand += sum(end - start for change, _, _, start, end in changes if change in {"replace", "insert"})
    yaml, sql = len(took["defs.yaml"]), len(took["features.sql"])
    return f"{yaml} lines of YAML and {sql} of SQL, {by_hand} of them written by hand"


def main() -> None:
    argparse.ArgumentParser(description="Follow docs/tutorial.md and write its outputs anew.").parse_args()
    text, own = parts()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        code = copied(folder / "project")
        followed = follow(text, code, code)
        elsewhere = follow(own, with_data_of(code, folder / "own"), code)
    for part, result in ((text, followed), (own, elsewhere)):
        anew = part
        for (start, end), (printed, _) in sorted(result.outputs.items(), reverse=True):
            anew = anew[:start] + printed + anew[end:]
        DOCUMENT.write_text(DOCUMENT.read_text().replace(part, anew))
    for path in COUNTED_IN:
        path.write_text(COUNT.sub(lambda match: match[1] + counted(followed) + match[3], path.read_text()))


if __name__ == "__main__":
    main()
