"""Declarations: are the models' files as they should be?"""

from __future__ import annotations

from pathlib import Path

import click

from mlops_assets.terminal import say

DEFS = Path(__file__).parent.parent / "defs"


@click.command()
@click.argument("what", metavar="[MODEL|PATH]", required=False)
def check(what: str | None) -> None:
    """Check the declarations of all models, of one MODEL, or of the file or folder PATH.

    Each thing that is wrong is a line: the file and its line, what was found there, what was expected, what to do.
    No data is read and nothing is run; estimators are imported. Exits with 1 when anything is wrong.

    \b
    Examples:
      mlops-assets check
      mlops-assets check green_taxi
      mlops-assets check my_project/defs/late_parcels/defs.yaml
    """
    from mlops_assets.declaration.checks import check_files, declaration_files, estimator_problems
    from mlops_assets.declaration.yaml_documents import DeclarationError

    try:
        models = check_files(_files(what, list(declaration_files(DEFS))))
        if wrong := estimator_problems(models):
            raise DeclarationError(wrong)
    except DeclarationError as error:
        for problem in error.problems:
            say(str(problem), err=True)
        count = len(error.problems)
        raise click.ClickException(f"{count} problem{'s' if count > 1 else ''} found") from error
    for model in models:
        say(f"{model.spec.name}: as it should be ({model.document.path})")


def _files(what: str | None, project: list[Path]) -> list[Path]:
    """The files to check: the project's, a model's by the name of its folder, or those of a path."""
    from mlops_assets.declaration.checks import declaration_files

    if what is None:
        return project
    named = [path for path in project if path.parent.name == what]
    path = Path(what)
    found = named or ([path] if path.is_file() else list(declaration_files(path)))
    if not found:
        known = ", ".join(sorted(path.parent.name for path in project)) or "none"
        raise click.ClickException(
            f"{what!r} is neither a model nor a file or folder with a declaration; the models are {known}"
        )
    return found
