"""How a cube is written and who writes it, as a recipe says it."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mdico_cube.recipe.section import Section

Codec = Literal["lz4", "zstd"]


class StoreSection(Section):
    """Where the cube lies, and how."""

    target: str | None = None
    """A folder (relative to the recipe) or an address such as s3://bucket/region/cube.zarr; null = cube.zarr, or
    cube.icechunk, in the output folder. Endpoint and credentials come from the environment (AWS_ENDPOINT_URL,
    AWS_ACCESS_KEY_ID, ...), never from here."""
    kind: Literal["zarr", "icechunk"] = "zarr"
    """zarr = plain Zarr v3; icechunk = a repository that takes each wave of shards in one commit."""
    chunk: Annotated[int, Field(ge=1)] = 64
    """Side of an inner chunk in pixels."""
    shard: Annotated[int, Field(ge=1)] = 512
    """Side of a shard in pixels: the unit of work, of resume and of files."""
    layout: Literal["sharded", "plain"] = "sharded"
    """sharded = one file per shard, its chunks inside; plain = one file per chunk, no sharding codec: many more files
    and slower windows, for programs that do not know shards (GDAL 3.12). Decided when a cube is made."""
    codec: Codec = "lz4"
    """What packs the pixels, after a byte shuffle (Blosc): lz4 = unpacked faster; zstd = a sixth to a third
    smaller. Decided when a cube is made. `mdico tune-layout` measures both."""
    level: Annotated[int, Field(ge=1, le=22)] | None = None
    """Of the codec, 1 to 9: higher is smaller and written more slowly; what is above 9 counts as 9. null = 9 for lz4,
    3 for zstd."""
    durable: bool = True
    """Wait until a shard is on the disk before the ledger says so: a power cut then costs the shards at work and no
    more. false is faster on slow disks (folders only; object stores always wait)."""
    wave: Annotated[int, Field(ge=1)] = 64
    """Shards per commit (icechunk)."""
    references: bool = False
    """Also write cube.SENSOR.json into the output folder at the end of a build: GDAL from 3.11 on, QGIS with it and
    xarray open such a file and read the cube's own shards. GDAL 3.13 needs none. Not for icechunk or layout plain."""

    @model_validator(mode="after")
    def _multiple(self) -> Self:
        if self.shard % self.chunk:
            raise ValueError(f"shard ({self.shard}) must be a multiple of chunk ({self.chunk})")
        _, is_address, rest = (self.target or "").partition("://")
        if is_address and ("?" in rest or "@" in rest.split("/")[0]):
            raise ValueError("target carries no user name, password or query: put credentials into the environment")
        if self.references and (self.kind == "icechunk" or (self.target or "").startswith("icechunk+")):
            raise ValueError("references lead into files, which an icechunk repository has not: leave them out")
        if self.references and self.layout == "plain":
            raise ValueError("references lead into shards, which layout plain has not: GDAL 3.12 opens it without them")
        return self


class ClusterSection(Section):
    """Where the shards of a cube are built. It decides how fast, never what."""

    kind: Literal[
        "auto", "loop", "threads", "local", "scheduler", "slurm", "pbs", "sge", "lsf", "oar", "moab", "htcondor",
        "gateway", "kubernetes",
    ] = "auto"  # fmt: skip
    """Who works: loop = one shard after the other in this process, the next one read while the last is composed and
    written; threads = some at once in this process; local = Dask worker processes on this machine; scheduler = a Dask
    scheduler that runs already (address); slurm, pbs, sge, lsf, oar, moab, htcondor = a batch system (dask-jobqueue);
    gateway and kubernetes = dask-gateway and dask-kubernetes. auto takes scheduler where an address is given, local
    for several workers, else loop."""
    workers: Annotated[int, Field(ge=1)] | None = None
    """Shards built at once: threads, worker processes, or jobs of a batch system; null = one per processor, and one
    in all for auto."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Files that one shard reads at once; null = the processors of this machine shared among the workers. With 1 a
    loop has one shard in hand, otherwise two."""
    memory: str | None = None
    """Memory of one local worker, such as 4GB; null = an equal share of this machine's."""
    adapt: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None
    """Fewest and most workers; the cluster then grows and shrinks with the work."""
    address: str | None = None
    """Address of a running scheduler, such as tcp://10.0.0.1:8786; with gateway, the gateway's."""
    options: dict[str, Any] = {}
    """Handed as they are to the cluster: queue, cores, walltime, image ... They are never stored in the cube."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kind == "scheduler" and self.address is None:
            raise ValueError("kind scheduler needs the scheduler's address, for example tcp://10.0.0.1:8786")
        if self.adapt is not None and self.adapt[0] > self.adapt[1]:
            raise ValueError(f"adapt is [fewest, most], came {list(self.adapt)}")
        if self.adapt is not None and self.kind in ("loop", "threads", "scheduler"):
            raise ValueError(f"kind {self.kind} cannot adapt: leave adapt out, or use another kind")
        return self

    @property
    def settled(self) -> str:
        """The kind with auto decided."""
        if self.kind != "auto":
            return self.kind
        if self.address is not None:
            return "scheduler"
        return "local" if self.adapt is not None or (self.workers or 1) > 1 else "loop"
