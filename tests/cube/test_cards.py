"""One worker process per card, and tasks that need one go nowhere else; the wiring needs no card."""

from __future__ import annotations

import os

import pytest

from mdico_cube.cube.clusters import dask_client
from mdico_cube.cube.dask_crew import GPU, DaskCrew
from mdico_cube.cube.execute import crew_for, execute
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ClusterSection

distributed = pytest.importorskip("distributed")


def card_of(job: int) -> tuple[int, str | None, int]:
    return job, os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


def test_a_local_cluster_has_one_process_for_each_card_that_sees_no_other():
    with dask_client(ClusterSection(kind="local"), cards=("3", "GPU-7")) as client:
        client.wait_for_workers(2, timeout=60)
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        assert [(worker["nthreads"], worker["resources"]) for worker in workers] == [(1, {GPU: 1})] * 2
        crew = DaskCrew(client, card=True)
        found = [result for _, result in execute(crew, card_of, range(12))]
    assert {job for job, _, _ in found} == set(range(12))
    assert {card for _, card, _ in found} == {"3", "GPU-7"}
    assert len({(card, pid) for _, card, pid in found}) == 2


def test_no_more_workers_than_are_asked_for():
    with crew_for(ClusterSection(kind="local", workers=1), cards=("0", "1")) as crew:
        assert {card for _, (_, card, _) in execute(crew, card_of, range(4))} == {"0"}


def test_on_a_running_scheduler_only_workers_with_the_resource_are_asked():
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": ":0", "host": "127.0.0.1"}}
    plain = {"cls": distributed.Nanny, "options": {"nthreads": 4, "env": {"CUDA_VISIBLE_DEVICES": ""}}}
    card = {
        "cls": distributed.Nanny,
        "options": {"nthreads": 1, "resources": {GPU: 1}, "env": {"CUDA_VISIBLE_DEVICES": "5"}},
    }
    with distributed.SpecCluster(workers={0: plain}, scheduler=scheduler, worker={}) as cluster:
        section = ClusterSection(kind="scheduler", address=cluster.scheduler_address)
        with distributed.Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(1, timeout=60)
            with (
                crew_for(section, cards=()) as crew,
                pytest.raises(MdicoError, match="none of its 1 workers has the resource GPU"),
            ):
                list(execute(crew, card_of, range(2)))
            cluster.worker_spec[1] = card
            cluster.sync(cluster._correct_state)
            client.wait_for_workers(2, timeout=60)
            with crew_for(section, cards=()) as crew:
                assert {found for _, (_, found, _) in execute(crew, card_of, range(8))} == {"5"}
