"""How a catalog's files are reached in; signed addresses and GDAL's settings out, made anew for every read."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from pydantic import model_validator
from rasterio.session import Session

from mdico_cube.cube.address import gdal_path, host_of, is_remote, shown
from mdico_cube.cube.tokens import TokenSection, from_environment, signed, token_of
from mdico_cube.recipe import ReadSection, Section

Signing = Literal["none", "planetary-computer"]
_AWS = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_NO_SIGN_REQUEST"),
)


class S3Section(Section):
    """How s3:// addresses are read. Keys come from the environment (AWS_ACCESS_KEY_ID ...) or from where `key` says."""

    endpoint: str | None = None
    """Address of another S3 service than Amazon's."""
    region: str | None = None
    path_style: bool = False
    """True where the service wants endpoint/bucket/key and not bucket.endpoint/key."""
    unsigned: bool | None = None
    """Read without credentials; null = where this machine has none (no AWS_... variables, no ~/.aws)."""
    requester_pays: bool = False
    key: str | None = None
    """Environment variable with the access key; null = AWS_ACCESS_KEY_ID or the profile in ~/.aws."""
    secret: str | None = None
    """Environment variable with the secret key."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.key is None) != (self.secret is None):
            raise ValueError("key and secret name one environment variable each: give both or neither")
        return self


@dataclass(frozen=True, slots=True)
class Reach:
    """Everything GDAL needs for one read of one file."""

    path: str
    """GDAL's name of the file, signed."""
    options: dict[str, str] = field(repr=False)
    """Configuration options that hold while it is read."""
    credentials: dict[str, str] = field(repr=False)
    """Options that rasterio takes from a session only."""
    headers: dict[str, str] = field(repr=False)
    """Headers sent along."""

    @property
    def session(self) -> Session:
        """What rasterio.Env wants as a session: it hands on our credentials and looks for no others."""
        return _Credentials(self.credentials)


class _Credentials(Session):  # type: ignore[misc]
    def __init__(self, credentials: Mapping[str, str]) -> None:
        self._session = None
        self.credentials = dict(credentials)

    def get_credential_options(self) -> dict[str, str]:
        return self.credentials


@dataclass(frozen=True, slots=True)
class Access:
    """How the files of one catalog are reached."""

    signing: Signing = "none"
    token: TokenSection | None = None
    s3: S3Section = field(default_factory=S3Section)

    def reach(self, address: str, reading: ReadSection, newer: float = 0.0) -> Reach:
        """Sign an address for the read that comes now.

        Args:
            address: where the asset is, unsigned.
            reading: when a request has failed, and how long to wait before it is made again.
            newer: use no token from before this time (time.monotonic), because the server refused it.

        Raises:
            MdicoError: a secret is not set, or the service that hands out tokens cannot be asked.
        """
        if not is_remote(address):
            return Reach(gdal_path(address), {}, {}, {})
        headers: dict[str, str] = {}
        if self.signing == "planetary-computer":
            address = signed(address, newer)
        if self.token is not None and _below(address, self.token.hosts):
            secret = token_of(self.token, newer)
            if self.token.send == "query":
                pair = secret if not self.token.name else urllib.parse.urlencode({self.token.name: secret})
                address += ("&" if "?" in address else "?") + pair
            elif self.token.send == "header":
                headers[self.token.name] = secret
            else:
                headers["Authorization"] = f"Bearer {secret}"
        options = {**WEB_OPTIONS, "GDAL_HTTP_RETRY_DELAY": str(reading.backoff)}
        options |= dict.fromkeys(("GDAL_HTTP_CONNECTTIMEOUT", "GDAL_HTTP_LOW_SPEED_TIME"), str(reading.timeout))
        if headers:
            options["GDAL_HTTP_HEADERS"] = "\r\n".join(f"{name}: {value}" for name, value in headers.items())
        credentials: dict[str, str] = {}
        if address.lower().startswith("s3://"):
            credentials = s3_options(self.s3)
        return Reach(gdal_path(address), options, credentials, headers)

    def hint(self, address: str) -> str:
        """What to set when a server refuses us, in one sentence."""
        if self.signing == "planetary-computer":
            return "Set PC_SDK_SUBSCRIPTION_KEY or check this machine's clock."
        if self.token is not None and self.token.env and _below(address, self.token.hosts):
            return f"Put a token that has not expired into the environment variable {self.token.env}."
        if self.token is not None and _below(address, self.token.hosts):
            names = [value.removeprefix("$") for value in self.token.form.values() if value.startswith("$")]
            return f"Check the account behind {', '.join(names) or shown(self.token.url or '')}."
        if address.lower().startswith("s3://"):
            names = [self.s3.key or "AWS_ACCESS_KEY_ID", self.s3.secret or "AWS_SECRET_ACCESS_KEY"]
            pays = "" if self.s3.requester_pays else ", and s3.requester_pays in the catalog file if the reader pays"
            return f"Set {' and '.join(names)} to keys that may read it{pays}."
        return "Say in the catalog file how it is reached: signing, token or s3."


WEB_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no sidecar files, no directory listings
    "GDAL_INGESTED_BYTES_AT_OPEN": "32768",  # a COG's header in one request
    "GDAL_HTTP_MULTIRANGE": "YES",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MAX_RETRY": "2",  # of single requests, so that a long read does not start anew for each
    "GDAL_HTTP_LOW_SPEED_LIMIT": "1000",
    "VSI_CACHE": "FALSE",  # a window is read once: a second cache only copies
}
"""What makes GDAL good at cloud-optimised GeoTIFFs."""


def s3_options(s3: S3Section) -> dict[str, str]:
    """GDAL's options for an S3 service; what is not said here GDAL takes from the environment and ~/.aws.

    Raises:
        MdicoError: an environment variable that the catalog file names is not set.
    """
    options = {"AWS_NO_SIGN_REQUEST": "YES"} if reads_unsigned(s3) else {}
    if s3.requester_pays:
        options["AWS_REQUEST_PAYER"] = "requester"
    if s3.region:
        options["AWS_REGION"] = s3.region
    if s3.path_style:
        options["AWS_VIRTUAL_HOSTING"] = "FALSE"
    if s3.endpoint:
        scheme, _, host = s3.endpoint.rpartition("://")
        options |= {"AWS_S3_ENDPOINT": host, "AWS_HTTPS": "NO" if scheme == "http" else "YES"}
    if s3.key and s3.secret:
        options |= {"AWS_ACCESS_KEY_ID": from_environment(s3.key), "AWS_SECRET_ACCESS_KEY": from_environment(s3.secret)}
        options["AWS_SESSION_TOKEN"] = ""
    return options


def reads_unsigned(s3: S3Section) -> bool:
    """True where requests to an S3 service carry no signature."""
    if s3.unsigned is not None or s3.key:
        return bool(s3.unsigned)
    if any(name in os.environ for name in _AWS):
        return False
    return not any((Path.home() / ".aws" / name).is_file() for name in ("credentials", "config"))


def _below(address: str, hosts: tuple[str, ...]) -> bool:
    host = host_of(address).partition("://")[2]
    return any(f".{host}".endswith(f".{one}") or f".{host.split(':')[0]}".endswith(f".{one}") for one in hosts)
