"""The data that ships is what its list of hashes says, all of it and nothing else."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from mlops_assets.home import PROJECT
from mlops_assets_tests.shipped_files import shipped

DATA = PROJECT / "data"
NO_DATA = {"README.md", "SHA256SUMS"}


def listed() -> dict[str, str]:
    lines = [line.split("  ", 1) for line in (DATA / "SHA256SUMS").read_text().splitlines()]
    return {name.removeprefix("./"): digest for digest, name in lines}


def test_every_shipped_file_is_listed_and_every_listed_file_ships() -> None:
    files = {path.relative_to(DATA).as_posix() for path in shipped(DATA)}
    assert files - NO_DATA == set(listed())


def test_the_shipped_files_have_their_hashes() -> None:
    found = {name: hashlib.sha256((DATA / name).read_bytes()).hexdigest() for name in listed()}
    assert found == listed()


def test_each_folder_of_data_has_its_source_and_licence() -> None:
    text = (DATA / "README.md").read_text()
    for folder in sorted({path.relative_to(DATA).parts[0] for path in shipped(DATA) if path.parent != DATA}):
        section = text.partition(f"\n## {folder}\n")[2].partition("\n## ")[0]
        assert "**Source**" in section, f"data/README.md says no source of {folder}"
        assert "**Licence**" in section, f"data/README.md says no licence of {folder}"


def test_a_table_of_ones_own_in_a_checkout_is_not_shipped_and_without_git_every_file_is(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shop, own = data / "shop" / "sales in May.csv", data / "late_parcels" / "parcels.csv"
    for path in (shop, own):
        path.parent.mkdir(parents=True)
        path.write_text("units\n1\n")
    assert shipped(data, tmp_path) == {shop, own}
    for command in (["init", "--quiet"], ["add", "data/shop"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    assert shipped(data, tmp_path) == {shop}
    shop.unlink()
    assert shipped(data, tmp_path) == set(), "what is not there does not ship"
