"""`dg scaffold defs mlops_assets.MonitoredModel NAME`: a new model's folder, valid as it is, to be filled in.

With `--source FILE --target COLUMN` the declaration is drafted from the file's columns.
"""

from __future__ import annotations

from pathlib import Path
from string import Template

import click
import dagster as dg
from pydantic import BaseModel, ConfigDict, Field

from mlops_assets.home import data_dir
from mlops_assets.monitored_model.draft import Draft, DraftError, drafted, example
from mlops_assets.monitored_model.spec import refused_name

README = Template("""\
# $name

What the model predicts, for whom, and from which data; how its windows and thresholds were chosen.
""")


FILES = ("defs.yaml", "features.sql", "README.md")


class ScaffoldParameters(BaseModel):
    """What a declaration is drafted from; without a file it is an example."""

    model_config = ConfigDict(extra="forbid")

    source: str | None = Field(default=None, description="A CSV or Parquet file of the model's records.")
    target: str | None = Field(default=None, description="The file's column that is to be predicted.")


class MonitoredModelScaffolder(dg.Scaffolder[ScaffoldParameters]):
    """Writes defs.yaml, features.sql and README.md of a new model, named after the folder."""

    @classmethod
    def get_scaffold_params(cls) -> type[ScaffoldParameters]:
        return ScaffoldParameters

    def scaffold(self, request: dg.ScaffoldRequest[ScaffoldParameters]) -> None:
        folder = request.target_path
        try:
            name, draft = _asked_for(request)
            files = {
                "defs.yaml": draft.defs_yaml(name, request.type_name),
                "features.sql": draft.features_sql(),
                "README.md": README.substitute(name=name),
            }
            for file, text in files.items():
                (folder / file).write_text(text, encoding="utf-8")
        except BaseException as error:
            # Dagster has made the folder already; left there, it would be in the way of the next attempt.
            for file in FILES:
                (folder / file).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
            if isinstance(error, (DraftError, ValueError, OSError)):
                raise click.ClickException(str(error)) from error
            raise


def _asked_for(request: dg.ScaffoldRequest[ScaffoldParameters]) -> tuple[str, Draft]:
    name, given = request.target_path.name, request.params
    if request.scaffold_format != "yaml":
        raise ValueError("a monitored model is declared in YAML; leave out `--format python`")
    if why := refused_name(name):
        raise ValueError(why)
    if given.source is None:
        if given.target is not None:
            raise ValueError("--target is a column of the file that --source names; give both")
        return name, example()
    return name, drafted(given.source, given.target, data_dir(), Path.cwd())
