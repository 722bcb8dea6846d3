"""Who may ask the lab: on this machine everybody; beyond it only those who have signed in, here, at an OpenID provider,
or at a proxy in front."""

from __future__ import annotations

import contextlib
import fnmatch
import ipaddress
import os
import re
import struct
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from engine.passwords import USER
from engine.serving.guard import LOCAL_HOSTS
from storage.acting import Role

Networks = tuple[IPv4Network | IPv6Network, ...]
LOOPBACK: Networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
ROUTES = Path("/proc/net/route")

BEYOND = (
    "The lab listens beyond this machine only where people sign in. Either with accounts of its own (--accounts) or "
    "of an OpenID provider (--openid), and the lab's name with --allowed-host. Or at a proxy in front: its address "
    "with --proxy, the header in which it tells who asks with --user-header (such as X-Forwarded-User), and the lab's "
    "name with --allowed-host. Or leave out --host (see docs/security.md)."
)
SECRET = "ROTE_LAB_OPENID_SECRET"
ONE_WAY = "--accounts and --user-header are two ways of signing in: choose one."
TOGETHER = "--user-header and --proxy go together: the proxy at that address tells in that header who asks."
PUBLISHED_ALONE = "--published-on-loopback lets this machine alone in: leave it out where a proxy stands in front."
NOT_THE_PROXY = "Only the proxy in front of this lab may ask it: open the lab at the proxy's address."
NOT_THIS_MACHINE = "This lab answers only to the machine that it runs on."
NOBODY = "The proxy in front of this lab did not tell, in one header, who asks: sign in there."
HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]+", re.ASCII)


class NotSafe(ValueError):
    """The lab must not listen like this; the message is one sentence that says what to do."""


@dataclass(frozen=True)
class Access:
    """Who may ask: those who call the server by one of `hosts`, from one of `peers`, named in `user_header`.

    Empty: whoever it is that connects (`peers`), whether or not somebody is named (`user_header`). accounts: whether
    people sign in with accounts of the lab's own. role: of those whom a provider or a proxy names for the first time;
    models: patterns of those that runners may name beside what the lab knows, see `engine.models.permitted`.
    """

    hosts: frozenset[str] = LOCAL_HOSTS
    peers: Networks = ()
    user_header: str = ""
    accounts: bool = False
    role: Role = Role.RUNNER
    models: tuple[str, ...] = ()


THIS_MACHINE = Access()


def access(
    address: str,
    host: str = "",
    user_header: str = "",
    proxies: tuple[str, ...] = (),
    allowed_hosts: tuple[str, ...] = (),
    published_on_loopback: bool = False,
    accounts: bool = False,
    role: Role = Role.RUNNER,
    models: tuple[str, ...] = (),
) -> Access:
    """Who may ask a lab that listens on this address, called `host`. Raises NotSafe.

    `proxies`: addresses or networks (`10.0.0.0/28`). `published_on_loopback`: it listens in a container whose port is
    published on the machine's loopback address; requests from there come from the container's gateway.
    """
    peers, names = _networks(proxies), frozenset(_name(name) for name in allowed_hosts)
    if bool(user_header) != bool(peers):
        raise NotSafe(TOGETHER)
    if user_header and not HEADER.fullmatch(user_header):
        raise NotSafe(f"‘{user_header}’ is no name of a header: give one such as X-Forwarded-User.")
    if published_on_loopback:
        if user_header:
            raise NotSafe(PUBLISHED_ALONE)
        return Access(LOCAL_HOSTS | names, (*LOOPBACK, *_gateway()), "", accounts, role, models)
    if accounts and user_header:
        raise NotSafe(ONE_WAY)
    if not _is_loopback(address) and not ((user_header or accounts) and names):
        raise NotSafe(BEYOND)
    own = frozenset() if user_header and names else LOCAL_HOSTS | {host.lower(), address}
    return Access(names | own - {""}, peers, user_header, accounts, role, models)


@dataclass(frozen=True)
class Provider:
    """An OpenID provider: its issuer's address, the lab's name and secret there, and whom of its people may in.

    allowed: mail addresses (`*@lab.example`), which the provider must have verified; `group:NAME`, of its claim
    `groups`; or `*` for all.
    """

    issuer: str
    client: str
    secret: str
    allowed: tuple[str, ...]

    @property
    def name(self) -> str:
        """What people know it by."""
        return urlsplit(self.issuer).hostname or self.issuer

    def lets_in(self, claims: Mapping[str, Any]) -> bool:
        """Whether somebody of whom it says this may use the lab."""
        mail = str(claims.get("email", "")).lower() if claims.get("email_verified") is True else ""
        groups = claims.get("groups")
        known = {f"group:{group}" for group in groups if isinstance(group, str)} if isinstance(groups, list) else set()
        return any(
            rule == "*" or rule in known or (mail and "@" in rule and fnmatch.fnmatchcase(mail, rule.lower()))
            for rule in self.allowed
        )


def provider(issuer: str, client: str, allowed: tuple[str, ...]) -> Provider | None:
    """The provider of those options; None without any. Raises NotSafe."""
    if not (issuer or client or allowed):
        return None
    if not (issuer and client and allowed):
        raise NotSafe(
            "--openid, --openid-client and --openid-allow go together: the issuer's address, the lab's name there, and "
            "who may in (*@lab.example, group:NAME, or * for everybody whom it signs in)."
        )
    place = urlsplit(issuer)
    if place.scheme != "https" and place.hostname not in ("127.0.0.1", "localhost"):
        raise NotSafe(f"--openid takes the https address of an issuer, not ‘{issuer}’.")
    if not (secret := os.environ.get(SECRET, "")):
        raise NotSafe(f"The lab's secret at the provider is missing: put it into the environment as {SECRET}.")
    return Provider(issuer.rstrip("/"), client, secret, allowed)


def _is_loopback(address: str) -> bool:
    try:
        return _plain(address).is_loopback
    except ValueError:
        return False


def _plain(address: str) -> IPv4Address | IPv6Address:
    """The address; one of IPv4 that is written as one of IPv6 is what it is. Raises ValueError."""
    found = ipaddress.ip_address(address)
    return (found.ipv4_mapped or found) if isinstance(found, IPv6Address) else found


def _networks(texts: tuple[str, ...]) -> Networks:
    found = []
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip())
        except ValueError as error:
            raise NotSafe(f"--proxy takes an address or a network such as 10.0.0.0/28: {error}.") from None
        if network.prefixlen == 0:
            raise NotSafe(f"--proxy {text} is everybody: name the proxy's own address.")
        found.append(network)
    return tuple(found)


def _name(text: str) -> str:
    name = text.strip().strip("[]")
    if not NAME.fullmatch(name):
        raise NotSafe(f"--allowed-host takes a name such as lab.example.org, without port or path, not ‘{text}’.")
    return name.lower()


def _gateway() -> Networks:
    """The gateway of this container's network, from which the machine's own requests come; none where it has none."""
    with contextlib.suppress(OSError):
        for line in ROUTES.read_text(encoding="ascii").splitlines()[1:]:
            destination, gateway, flags = line.split()[1:4]
            if destination == "00000000" and int(flags, 16) & 2:
                return (ipaddress.ip_network(IPv4Address(struct.pack("=I", int(gateway, 16)))),)
    return ()


LetIn = Callable[[Scope, Receive, Send], Awaitable[bool]]


class Door:
    """ASGI middleware that lets in whom `Access` names: by the socket's address, and by the proxy's header.

    let_in: where the lab has accounts, whether somebody is signed in; it has answered those who are not.
    """

    def __init__(self, app: ASGIApp, access: Access, let_in: LetIn | None = None) -> None:
        self.app, self.access, self.let_in = app, access, let_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        words, status = self._refusal(scope) if scope["type"] in ("http", "websocket") else ("", 0)
        if not words and self.let_in is not None and scope["type"] == "websocket":
            words = NOBODY
        if not words:
            if self.let_in is None or scope["type"] != "http" or await self.let_in(scope, receive, send):
                await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await PlainTextResponse(words, status)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Scope) -> tuple[str, int]:
        if self.access.peers and not self._is_peer(scope):
            return (NOT_THE_PROXY if self.access.user_header else NOT_THIS_MACHINE), 403
        if self.access.user_header:
            named = Headers(scope=scope).getlist(self.access.user_header)
            if len(named) != 1 or not USER.fullmatch(named[0]):
                return NOBODY, 401
        return "", 0

    def _is_peer(self, scope: Scope) -> bool:
        try:
            peer = _plain((scope.get("client") or ("", 0))[0])
        except ValueError:
            return False
        return any(peer in network for network in self.access.peers)
