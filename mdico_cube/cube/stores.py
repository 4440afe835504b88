"""A STAC asset that is a Zarr store in, an xarray Dataset out: opened safely, nothing read but its coordinates."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pystac
import xarray as xr
import zarr
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import FsspecStore, LocalStore, ObjectStore, WrapperStore

from mdico_cube.cube.access import Access, S3Section, reads_unsigned
from mdico_cube.cube.address import REMOTE, plain, shown
from mdico_cube.cube.faults import judge_status
from mdico_cube.cube.pages import UnreachableError
from mdico_cube.cube.patience import pauses
from mdico_cube.cube.tokens import from_environment
from mdico_cube.errors import MdicoError, did_you_mean
from mdico_cube.recipe import ReadSection

OPTIONS = "xarray:open_kwargs"
STORAGE = "xarray:storage_options"
OPEN_KEYS: dict[str, tuple[type, ...]] = {
    "engine": (str,),
    "chunks": (dict, str, type(None)),
    "consolidated": (bool, type(None)),
    "zarr_format": (int,),
    "zarr_version": (int,),
    "group": (str,),
    "decode_times": (bool,),
    "decode_coords": (bool, str),
    "mask_and_scale": (bool,),
    "storage_options": (dict,),
}
"""What a catalog may ask of xarray, and as what type. Everything else is refused: a catalog is data, not a program."""
STORAGE_KEYS: dict[str, tuple[type, ...]] = {
    "anon": (bool,),
    "trust_env": (bool,),
    "requester_pays": (bool,),
    "region_name": (str,),
    "endpoint_url": (str,),
    "account_name": (str,),
}
"""What a catalog may say of the place a store lies in."""
NESTED = ("client_kwargs", "remote_options")
"""Storage options that only hold others."""
CODECS = (
    *("blosc", "zstd", "gzip", "zlib", "lz4", "lzma", "bz2", "bytes", "crc32c", "crc32", "adler32", "fletcher32"),
    *("shuffle", "delta", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype", "transpose"),
    *("sharding_indexed", "vlen-utf8", "vlen-bytes"),
)
"""Ways of packing that only unpack numbers and texts."""


def is_store(asset: pystac.Asset) -> bool:
    """True where an asset is a Zarr store, by its media type or, where it has none, by its name."""
    if asset.media_type:
        return "zarr" in asset.media_type.lower()
    return urlparse(asset.href).path.rstrip("/").lower().endswith(".zarr")


def open_store(item: pystac.Item, key: str, access: Access, reading: ReadSection) -> xr.Dataset:
    """One asset of an item as a Dataset: CF-decoded, missing values NaN, values read when they are asked for.

    Args:
        item: from a search that has checked its addresses.
        key: of the asset.
        access: how the catalog's files are reached.
        reading: how long to go on after faults.

    Raises:
        MdicoError: there is no such asset, it is no Zarr store, its options ask for more than reading one, or it
            cannot be read.
    """
    where = f"{item.collection_id}: item {item.id}, asset {key}"
    if key not in item.assets:
        raise MdicoError(
            f"{where}: there is none, the item has {', '.join(item.assets)}. Set source.zarr.asset to the Zarr store."
            f"{did_you_mean(key, item.assets)}"
        )
    asset = item.assets[key]
    if not is_store(asset):
        raise MdicoError(
            f"{where} is no Zarr store ({asset.media_type or Path(urlparse(asset.href).path).name}). "
            "Set source.zarr.asset to one that is, or use another catalog."
        )
    options = _options(asset, where)
    storage = {**options.pop("storage_options", {}), **_storage(asset.extra_fields.get(STORAGE, {}), where)}
    try:
        store = _store(asset.href, storage, where, access, reading)
        group = zarr.open_group(store, mode="r", path=options.pop("group", None) or "")
        _check_codecs(group, where)
        web = asset.href.lower().startswith("http")
        if web and group.metadata.consolidated_metadata is None and not any(group.members()):
            raise MdicoError(
                f"{where}: shows no variable, as web servers list no folders. Write it with consolidated metadata."
            )
        return xr.open_dataset(
            group.store,  # type: ignore[arg-type]
            engine="zarr",
            chunks=None,
            group=group.path or None,
            zarr_format=group.metadata.zarr_format,
            consolidated=group.metadata.consolidated_metadata is not None,
            decode_timedelta=False,
            **options,
        )
    except MdicoError:
        raise
    except Exception as error:  # every transport and codec has its own: each means that the store cannot be opened
        raise UnreachableError(f"{where}: {reason(error, asset.href)}") from error


def _options(asset: pystac.Asset, where: str) -> dict[str, Any]:
    """What xarray is told: only known keys, only Zarr."""
    said = asset.extra_fields.get(OPTIONS, {})
    _check_keys(said, OPEN_KEYS, f"{where}: {OPTIONS}")
    if said.get("engine", "zarr") != "zarr":
        raise MdicoError(f"{where}: {OPTIONS} asks for engine {said['engine']!r}. Only zarr is opened.")
    nested = _storage(said.get("storage_options", {}), where)
    kept = {key: said[key] for key in ("group", "decode_times", "decode_coords", "mask_and_scale") if key in said}
    return {**kept, "storage_options": nested}


def _storage(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Storage options in one level."""
    parts = [said, *(said[key] for key in NESTED if isinstance(said, Mapping) and key in said)]
    if not all(isinstance(part, Mapping) for part in parts):
        raise MdicoError(f"{where}: {STORAGE} is of the wrong type. Correct the item.")
    flat = {key: value for part in parts for key, value in part.items() if key not in NESTED}
    _check_keys(flat, STORAGE_KEYS, f"{where}: {STORAGE}")
    if not flat.get("endpoint_url", "https:").startswith("https:"):
        raise MdicoError(f"{where}: {STORAGE} names an endpoint that is not https. It is not opened.")
    return flat


def _check_keys(said: Any, known: Mapping[str, tuple[type, ...]], where: str) -> None:
    if not isinstance(said, Mapping):
        raise MdicoError(f"{where} is of the wrong type: it must name options. Correct the item.")
    for key, value in said.items():
        if key not in known:
            raise MdicoError(
                f"{where} asks for {key!r}, which a catalog may not decide. It may say {', '.join(known)}; "
                "take the rest out of the item."
            )
        if not isinstance(value, known[key]):
            raise MdicoError(f"{where}: {key} is {value!r}, which is of the wrong type. Correct the item.")


def _check_codecs(group: zarr.Group, where: str) -> None:
    """Refuse stores whose chunks are unpacked by anything but the plain codecs: some execute what they read."""
    for name, array in group.arrays():
        facts = array.metadata.to_dict()
        for codec in _codecs([facts.get("codecs"), facts.get("filters"), facts.get("compressor")]):
            if codec.removeprefix("numcodecs.") not in CODECS:
                raise MdicoError(f"{where}: {name} is packed by {codec!r}, which is not unpacked. Known: {CODECS}.")


def _codecs(facts: Any) -> Iterable[str]:
    """Names of codecs in a piece of array metadata, those inside shards too."""
    if isinstance(facts, Mapping):
        name = facts.get("id", facts.get("name"))
        if name:
            yield str(name)
        facts = [value for key, value in facts.items() if key in ("configuration", "codecs", "index_codecs")]
    if isinstance(facts, list | tuple):
        for part in facts:
            yield from _codecs(part)


def _store(href: str, storage: Mapping[str, Any], where: str, access: Access, reading: ReadSection) -> Store:
    """What reads the bytes: files, http through fsspec, buckets through obstore."""
    scheme = urlparse(href).scheme.lower()
    if scheme in ("http", "https"):
        timeout = import_module("aiohttp").ClientTimeout(
            total=None, sock_connect=reading.timeout, sock_read=reading.timeout
        )
        headers = access.reach(href, reading).headers
        client = {"trust_env": True, "timeout": timeout, "headers": headers}  # trust_env: tokens in ~/.netrc
        bare = href.split("?")[0]  # a signature of the store's address does not open its chunks
        return Patient(FsspecStore.from_url(bare, {"client_kwargs": client}, read_only=True), reading)
    if scheme in REMOTE:
        return ObjectStore(_bucket(href, storage, access.s3, reading), read_only=True)
    path = Path(urlparse(href).path if scheme == "file" else href)
    if not path.is_dir():
        raise MdicoError(f"{where}: {path} is no folder. Repair the item or remove it.")
    return LocalStore(path, read_only=True)


def _bucket(href: str, storage: Mapping[str, Any], s3: S3Section, reading: ReadSection) -> Any:
    """An object store: what the catalog file says of it wins over what the item says; keys are the environment's."""
    try:
        from_url = import_module("obstore.store").from_url
    except ImportError as error:
        raise MdicoError("Zarr stores in buckets are read with obstore: pip install 'mdico-cube[s3]'.") from error
    plain_http = (s3.endpoint or "").startswith("http:")
    retry = {"max_retries": reading.retries, "backoff": {"init_backoff": timedelta(seconds=reading.backoff)}}
    said: dict[str, Any] = {}
    if href.lower().startswith("s3:"):
        said = {
            "endpoint": s3.endpoint or storage.get("endpoint_url"),
            "region": s3.region or storage.get("region_name"),
            "skip_signature": reads_unsigned(s3) or storage.get("anon"),
            "request_payer": s3.requester_pays or storage.get("requester_pays"),
            "virtual_hosted_style_request": None if s3.endpoint is None else not s3.path_style,
            "access_key_id": None if s3.key is None else from_environment(s3.key),
            "secret_access_key": None if s3.secret is None else from_environment(s3.secret),
        }
    elif "account_name" in storage:
        said = {"account_name": storage["account_name"], "skip_signature": storage.get("anon")}
    kept = {key: value for key, value in said.items() if value is not None}
    return from_url(href, client_options={"allow_http": plain_http}, retry_config=retry, **kept)


class Patient(WrapperStore[FsspecStore]):
    """A store on the web that is asked again when it is busy or silent, each time after a longer, uneven wait."""

    def __init__(self, store: FsspecStore, reading: ReadSection) -> None:
        super().__init__(store)
        self._reading = reading

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes under a key; None where there are none."""
        waits = pauses(self._reading)
        while True:
            try:
                return await self._store.get(key, prototype or default_buffer_prototype(), byte_range)
            except Exception as error:
                wait = next(waits, None) if _passes(error) else None
                if wait is None:
                    raise
            await asyncio.sleep(wait)


def _passes(error: Exception) -> bool:
    """True for faults that a moment may heal."""
    status = getattr(error, "status", None)
    if isinstance(status, int) and status:
        return judge_status(status) == "passing"
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("aiohttp")


def reason(error: Exception, href: str) -> str:
    """Why a store cannot be read and what to do, without the query of its address, where signatures live."""
    host = urlparse(href).hostname or "the storage"
    status = getattr(error, "status", None)
    if status in (401, 403):
        return (
            f"{host} refuses access (HTTP {status}). Write your access token into ~/.netrc "
            f"(machine {host} login NAME password TOKEN), then go on with --resume."
        )
    text = plain((str(error).splitlines() or [""])[0]) or type(error).__name__
    return f"the Zarr store {shown(href)} cannot be read ({text}). Go on with --resume once it can be read."
