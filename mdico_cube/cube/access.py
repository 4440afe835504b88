"""How a catalog's files are reached in; signed addresses and GDAL's settings out, made anew for every read."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from rasterio.session import Session

from mdico_cube.cube.address import gdal_path, host_of, is_remote, plain, shown
from mdico_cube.cube.faults import judge_status
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import ReadSection, Section

Signing = Literal["none", "planetary-computer"]
_AWS = (
    *("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_NO_SIGN_REQUEST"),
)
_TOKEN_LIFE = 3600.0
"""Seconds for which a token is used whose service does not say how long it lasts."""


class TokenSection(Section):
    """A secret that is sent with every request to some hosts. Only its name stands here, never the secret itself."""

    env: str | None = None
    """Environment variable that holds the token."""
    url: str | None = None
    """Service that hands out tokens as JSON; asked again when a token has expired."""
    form: Annotated[dict[str, str], Field(default_factory=dict)]
    """Fields posted to the service; a value "$NAME" is taken from that environment variable. Empty = a plain GET."""
    answer: str = "access_token"
    """Where the token stands in the service's answer."""
    send: Literal["bearer", "header", "query"] = "bearer"
    """How it goes along: as Authorization: Bearer, as a header, or appended to the address."""
    name: str = ""
    """Of the header or of the query's parameter; empty with send: query = the token is the whole query."""
    hosts: Annotated[tuple[str, ...], Field(min_length=1)]
    """Hosts that get it, with everything below them; no other host ever sees it."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.env is None) == (self.url is None):
            raise ValueError("give exactly one of env, url")
        if self.send == "header" and not self.name:
            raise ValueError("send: header needs the header's name")
        return self


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
            address = _planetary_computer(address, newer)
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


_TOKENS: dict[str, tuple[float, float, str]] = {}
"""Service -> (when its token was asked for, when it ends, token), in this process."""
_TOKENS_LOCK = threading.Lock()
_PLANETARY = "planetary-computer"


def token_of(token: TokenSection, newer: float = 0.0) -> str:
    """The secret itself: from the environment, or from its service, kept until a minute before it expires.

    Raises:
        MdicoError: the variable is not set, or the service refuses.
        ConnectionError: the service cannot be reached now.
    """
    if token.env is not None:
        return from_environment(token.env)
    assert token.url is not None
    with _TOKENS_LOCK:  # one asks, the others wait
        asked, ends, secret = _TOKENS.get(token.url, (0.0, 0.0, ""))
        now = time.monotonic()
        if now < ends and asked >= newer:
            return secret
        answer = _ask(token)
        life = float(answer.get("expires_in") or _TOKEN_LIFE)
        secret = str(answer[token.answer])
        _TOKENS[token.url] = (now, now + max(life - 60, life / 2), secret)
        return secret


def forget_tokens() -> None:
    """Ask for new tokens from now on."""
    with _TOKENS_LOCK:
        _TOKENS.clear()


def _ask(token: TokenSection) -> dict[str, Any]:
    assert token.url is not None
    form = {key: from_environment(value[1:]) if value.startswith("$") else value for key, value in token.form.items()}
    body = urllib.parse.urlencode(form).encode() if form else None
    try:
        with urllib.request.urlopen(urllib.request.Request(token.url, data=body), timeout=30) as reply:
            answer = json.loads(reply.read())
    except urllib.error.HTTPError as error:
        error.close()
        if judge_status(error.code) == "passing":
            raise ConnectionError(f"{shown(token.url)} hands out no token: HTTP {error.code}") from None
        raise MdicoError(
            f"{shown(token.url)}: hands out no token (HTTP {error.code}). Check the account that the catalog file's "
            "token.form names."
        ) from None
    except (OSError, ValueError) as error:
        raise ConnectionError(f"{shown(token.url)} hands out no token: {plain(error)}") from None
    if not isinstance(answer, dict) or token.answer not in answer:
        raise MdicoError(
            f"{shown(token.url)}: its answer has no {token.answer!r}. Set token.answer in the catalog file."
        )
    return answer


def from_environment(name: str) -> str:
    """What an environment variable holds.

    Raises:
        MdicoError: it is not set.
    """
    value = os.environ.get(name, "")
    if not value:
        raise MdicoError(f"the environment variable {name} is not set. The catalog file needs it to reach its files.")
    return value


def _below(address: str, hosts: tuple[str, ...]) -> bool:
    host = host_of(address).partition("://")[2]
    return any(f".{host}".endswith(f".{one}") or f".{host.split(':')[0]}".endswith(f".{one}") for one in hosts)


def _planetary_computer(address: str, newer: float) -> str:
    """Signed by the Planetary Computer's own package, which keeps its tokens until they expire.

    Raises:
        MdicoError: the package is not installed.
    """
    try:
        sas = import_module("planetary_computer.sas")
    except ImportError as error:
        raise MdicoError(
            "the Planetary Computer signs its addresses: pip install 'mdico-cube[planetary-computer]'."
        ) from error
    with _TOKENS_LOCK:
        if newer > _TOKENS.get(_PLANETARY, (0.0, 0.0, ""))[0]:
            sas.TOKEN_CACHE.clear()
            _TOKENS[_PLANETARY] = (time.monotonic(), 0.0, "")
    account = urllib.parse.urlparse(address).netloc
    bare = address.split("?")[0] if account.endswith(".blob.core.windows.net") else address
    return str(sas.sign_url(bare))
