"""What a catalog file says of a secret in, the secret itself out: kept until it expires, never written anywhere."""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from importlib import import_module
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from mdico_cube.cube.address import plain, shown
from mdico_cube.cube.faults import judge_status
from mdico_cube.errors import MdicoError
from mdico_cube.recipe import Section

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


def signed(address: str, newer: float) -> str:
    """An address signed by the Planetary Computer's own package, which keeps its tokens until they expire.

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
