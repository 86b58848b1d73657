"""The data that ships is what its list of hashes says, all of it and nothing else."""

from __future__ import annotations

import hashlib

from mlops_assets.home import PROJECT

DATA = PROJECT / "data"
NO_DATA = {"README.md", "SHA256SUMS"}


def listed() -> dict[str, str]:
    lines = [line.split("  ", 1) for line in (DATA / "SHA256SUMS").read_text().splitlines()]
    return {name.removeprefix("./"): digest for digest, name in lines}


def test_every_shipped_file_is_listed_and_every_listed_file_ships() -> None:
    files = {path.relative_to(DATA).as_posix() for path in DATA.rglob("*") if path.is_file()}
    assert files - NO_DATA == set(listed())


def test_the_shipped_files_have_their_hashes() -> None:
    found = {name: hashlib.sha256((DATA / name).read_bytes()).hexdigest() for name in listed()}
    assert found == listed()


def test_each_folder_of_data_has_its_source_and_licence() -> None:
    text = (DATA / "README.md").read_text()
    for folder in sorted(path.name for path in DATA.iterdir() if path.is_dir()):
        section = text.partition(f"\n## {folder}\n")[2].partition("\n## ")[0]
        assert "**Source**" in section, f"data/README.md says no source of {folder}"
        assert "**Licence**" in section, f"data/README.md says no licence of {folder}"
