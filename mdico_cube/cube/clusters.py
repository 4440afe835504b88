"""A recipe's cluster section in, a Dask client out: local, by address, batch system, gateway or Kubernetes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import dask

from mdico_cube.cube import dask_crew, dask_worker
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ClusterSection

_CLUSTERS = {
    "slurm": ("dask_jobqueue", "SLURMCluster", "dask-jobqueue"),
    "pbs": ("dask_jobqueue", "PBSCluster", "dask-jobqueue"),
    "sge": ("dask_jobqueue", "SGECluster", "dask-jobqueue"),
    "lsf": ("dask_jobqueue", "LSFCluster", "dask-jobqueue"),
    "oar": ("dask_jobqueue", "OARCluster", "dask-jobqueue"),
    "moab": ("dask_jobqueue", "MoabCluster", "dask-jobqueue"),
    "htcondor": ("dask_jobqueue", "HTCondorCluster", "dask-jobqueue"),
    "gateway": ("dask_gateway", "GatewayCluster", "dask-gateway"),
    "kubernetes": ("dask_kubernetes.operator", "KubeCluster", "dask-kubernetes"),
}
"""Kind -> (module, class, what to install)."""
_ENVIRONMENT = {
    # Blocks of megabytes come and go with every shard: memory that is handed back to the system each time is slow.
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
    # GDAL's cache is per process and by default a share of the whole machine.
    "GDAL_CACHEMAX": "256",
    # One job, one core: the workers are the parallelism.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}
"""What a local worker process starts with."""
_CALM = {
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "500ms",
    "distributed.worker.profile.interval": "100ms",
    "distributed.worker.profile.cycle": "10s",
}
"""How often a local cluster looks at itself: Dask's own defaults take a twentieth of each processor."""

CONNECT = "20s"
"""How long a scheduler is waited for."""


def processors() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def dask_client(section: ClusterSection, cards: Sequence[str] = ()) -> Iterator[Any]:
    """A client of the section's cluster; one that is started here is closed at the end.

    Args:
        section: of the recipe.
        cards: of this machine: a local cluster has a worker for each, that sees no other.

    Raises:
        MdicoError: a package is missing, or the cluster cannot be started or reached.
    """
    distributed = import_module("distributed")
    kind = section.settled
    if kind == "scheduler":
        if not re.search(r":\d+$", section.address or ""):  # distributed would wait for its own client's end
            raise MdicoError(f"cluster {section.address}: has no port. Write its address as tcp://10.0.0.1:8786.")
        with _connected(distributed, section.address, section.address) as client:
            yield client
        return
    started = _with_cards(distributed, section, cards) if cards and kind == "local" else None
    with started or _started(distributed, kind, section) as cluster, _connected(distributed, cluster, kind) as client:
        yield client


def check_scheduler(section: ClusterSection) -> None:
    """Raise MdicoError where the section names a scheduler that cannot be reached; asked before a thing is written."""
    if section.settled == "scheduler":
        with dask_client(section):
            pass


@contextmanager
def _connected(distributed: Any, target: Any, name: str | None) -> Iterator[Any]:
    try:
        client = distributed.Client(target, timeout=CONNECT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise MdicoError(
            f"cluster {name}: its scheduler cannot be reached ({error}). Check that it runs and the address."
        ) from error
    try:
        yield client
    finally:
        client.close(timeout=5)


@contextmanager
def _started(distributed: Any, kind: str, section: ClusterSection) -> Iterator[Any]:
    workers = section.workers
    if kind == "local":
        facts = {
            "n_workers": 0 if section.adapt else workers or processors(),
            "threads_per_worker": 1,
            "memory_limit": section.memory or "auto",
            "dashboard_address": ":0",
            "env": _ENVIRONMENT,
            "config": _CALM,
            "preload": _preloads(),
        }
        found: Any = distributed.LocalCluster
    else:
        found, facts = _cluster_class(kind), {"address": section.address} if section.address else {}
        _check_queue(kind, found)
    try:
        with dask.config.set(_CALM if kind == "local" else {}):  # for the scheduler; workers may start later
            cluster = found(**{**facts, **section.options})
    except Exception as error:  # every cluster package has its own errors; each means the same to the user
        raise MdicoError(f"cluster {kind}: cannot be started ({error}). Check the recipe's cluster.options.") from error
    try:
        if section.adapt is not None:
            cluster.adapt(minimum=section.adapt[0], maximum=section.adapt[1])
        elif kind != "local" and workers is not None:
            cluster.scale(workers)
        yield cluster
    finally:
        cluster.close()


def _preloads() -> list[str]:
    """What a worker process loads first: ours, and what Dask's own configuration asks for."""
    given = dask.config.get("distributed.worker.preload", [])
    return [dask_worker.__name__, *([given] if isinstance(given, str) else given)]


@contextmanager
def _with_cards(distributed: Any, section: ClusterSection, cards: Sequence[str]) -> Iterator[Any]:
    """A local cluster with one worker process per card, as many as are asked for at most."""
    options = {
        "nthreads": 1,
        "config": _CALM,
        "memory_limit": section.memory or "auto",
        "preload": _preloads(),
    }
    workers = {
        number: {
            "cls": distributed.Nanny,
            "options": {
                **options,
                "resources": {dask_crew.GPU: 1},
                "env": {**_ENVIRONMENT, "CUDA_VISIBLE_DEVICES": card},
            },
        }
        for number, card in enumerate(cards[: section.workers or len(cards)])
    }
    scheduler = {"cls": distributed.Scheduler, "options": {"dashboard_address": ":0", "host": "127.0.0.1"}}
    try:
        with dask.config.set(_CALM):
            cluster = distributed.SpecCluster(workers=workers, scheduler=scheduler, worker={}, silence_logs=30)
    except (OSError, ValueError, TimeoutError, RuntimeError) as error:
        raise MdicoError(f"cluster local: cannot be started ({error}). Use cluster.kind threads.") from error
    try:
        yield cluster
    finally:
        cluster.close()


def _cluster_class(kind: str) -> Any:
    module, name, package = _CLUSTERS[kind]
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        raise MdicoError(f"cluster {kind}: needs a package that is not installed: pip install {package}.") from error


def _check_queue(kind: str, found: Any) -> None:
    """Raise MdicoError where a batch system's own command is missing: dask-jobqueue would wait for ever."""
    command = getattr(getattr(found, "job_cls", None), "submit_command", None)
    if command and shutil.which(shlex.split(command)[0]) is None:
        raise MdicoError(
            f"cluster {kind}: {command} is not found here, so no job can be handed in. Run this where the commands of "
            "the batch system are, such as a login node, or use another cluster.kind."
        )
