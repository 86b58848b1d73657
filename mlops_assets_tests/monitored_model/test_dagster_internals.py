"""A contract with Dagster: what we use of its internals does what we use it for. Fails when an upgrade changes that."""

from __future__ import annotations

import dagster as dg

from mlops_assets.monitored_model.dagster_internals import job_origin, link_to_job, location_tags


@dg.op
def nothing() -> None:
    return None


@dg.job
def idle() -> None:
    nothing()


def test_a_run_made_in_process_becomes_one_of_the_jobs() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = idle.execute_in_process(instance=instance, tags=location_tags("idle"))
        link_to_job(instance, result.run_id, "idle")
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.remote_job_origin == job_origin("idle")
        assert run.tags[".dagster/repository"] == "__repository__@mlops_assets"
        # What the UI's timeline asks for.
        found = instance.get_runs(dg.RunsFilter(tags=location_tags("idle")))
        assert [known.run_id for known in found] == [result.run_id]
