"""What we use of Dagster's internals, beside its event log: links of runs to the jobs of the UI, why YAML did not load.

`execute_in_process` records a run without the origin of its job, so the UI's timeline and the job's own pages leave it
out. There is no public way to say it. Nor is there one to tell a declaration that is wrong from a fault of ours. A
contract test tells at once when an upgrade changes what is used here.
"""

from __future__ import annotations

import re

import dagster as dg
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

# As in workspace.yaml.
CODE_LOCATION = "mlops_assets"
CODE_LOCATION_MODULE = "mlops_assets.definitions"


def job_origin(job_name: str) -> RemoteJobOrigin:
    """The job as the UI knows it, from workspace.yaml."""
    location = ManagedGrpcPythonEnvCodeLocationOrigin(
        loadable_target_origin=LoadableTargetOrigin(module_name=CODE_LOCATION_MODULE), location_name=CODE_LOCATION
    )
    return RemoteRepositoryOrigin(location, SINGLETON_REPOSITORY_NAME).get_job_origin(job_name)


def location_tags(job_name: str) -> dict[str, str]:
    """The tags by which the UI finds a run among those of its code location."""
    return {REPOSITORY_LABEL_TAG: job_origin(job_name).repository_origin.get_label()}


def why_not_loaded(error: BaseException) -> str | None:
    """What is wrong with a declaration, in its own words, without the stack; None when the error is another one."""
    import yaml
    from dagster.components.core.component_tree import ComponentTreeException

    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    if not any(isinstance(one, (ComponentTreeException, yaml.YAMLError)) for one in chain):
        return None
    causes = [one for one in chain if not isinstance(one, ComponentTreeException)]
    lines = str((causes or chain)[0]).splitlines()
    told = [line for line in lines if not re.match(r"\s*For further information|\d+ validation errors? for ", line)]
    return "\n".join(_plain(line) for line in told)


def _plain(line: str) -> str:
    """A line of pydantic's complaint, without what only its developers look at."""
    line = re.sub(r" \[type=\w+, input_value=.*, input_type=\w+\]$", "", line)
    return line.replace("  Value error, ", "  ").replace("Extra inputs are not permitted", "there is no such key")


def link_to_job(instance: dg.DagsterInstance, run_id: str, job_name: str) -> None:
    """Make a run that was made in process one of the job's."""
    run = instance.get_run_by_id(run_id)
    if run is not None:
        instance.run_storage.replace_job_origin(run, job_origin(job_name))
