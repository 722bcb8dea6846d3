"""Who may ask a lab: on this machine everybody, beyond it those whom a named proxy names in a header."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
import typer
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import Message

from app import __main__ as start
from app.server import sign_in
from app.server.accounts import is_local, session_of
from app.server.sign_in import BEYOND, LOOPBACK, NOBODY, NOT_THE_PROXY, NOT_THIS_MACHINE, Access, Door, NotSafe, access
from app.server.uploads import empty_uploads, make_uploads
from engine.serving.guard import LOCAL_HOSTS
from tests.unit.test_serving_guard import carried_out

PROXY = ("10.0.0.5", "10.1.0.0/24", "fd00::5")
HEADER = "X-Forwarded-User"


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_on_the_loopback_address_nothing_has_to_be_said(address: str) -> None:
    assert access(address, "localhost") == Access(LOCAL_HOSTS | {"localhost", address}, (), "")


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "192.168.1.7", "fe80::1%eth0", "2001:db8::1", "::ffff:10.0.0.1", ""]
)
def test_beyond_it_a_proxy_has_to_sign_people_in(address: str) -> None:
    with pytest.raises(NotSafe, match="at a proxy in front") as refused:
        access(address)
    assert str(refused.value) == BEYOND
    with pytest.raises(NotSafe, match="--allowed-host"):
        access(address, "", HEADER, PROXY)
    assert access(address, "", HEADER, PROXY, ("Lab.example",)).hosts == {"lab.example"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"user_header": HEADER}, "go together"),
        ({"proxies": PROXY}, "go together"),
        ({"user_header": "X Forwarded", "proxies": PROXY}, "no name of a header"),
        ({"user_header": HEADER, "proxies": ("proxy.example",)}, "an address or a network"),
        ({"user_header": HEADER, "proxies": ("10.0.0.5/24",)}, "has host bits set"),
        ({"user_header": HEADER, "proxies": ("0.0.0.0/0",)}, "is everybody"),
        ({"user_header": HEADER, "proxies": ("::/0",)}, "is everybody"),
        ({"allowed_hosts": ("https://lab.example",)}, "without port or path"),
        ({"allowed_hosts": ("*",)}, "without port or path"),
        ({"allowed_hosts": ("",)}, "without port or path"),
        ({"user_header": HEADER, "proxies": PROXY, "published_on_loopback": True}, "lets this machine alone in"),
    ],
)
def test_what_makes_no_sense_is_said(options: dict[str, object], words: str) -> None:
    with pytest.raises(NotSafe, match=words):
        access("127.0.0.1", **options)  # type: ignore[arg-type]


def at_the_door(allowed: Access, peer: str | None, *headers: tuple[str, str]) -> tuple[int, str]:
    door = Door(PlainTextResponse("inside"), allowed)
    transport = httpx.ASGITransport(door, client=(peer, 1))  # type: ignore[arg-type]

    async def send() -> tuple[int, str]:
        async with httpx.AsyncClient(transport=transport) as client:
            told = await client.get(
                "http://lab.example/", headers=[(k.encode(), v.encode("latin-1")) for k, v in headers]
            )
            return told.status_code, told.text

    return carried_out(send())


@pytest.mark.parametrize("peer", ["10.0.0.6", "10.2.0.1", "127.0.0.1", "::1", "fd00::6", "", None, "unknown"])
def test_nobody_gets_past_the_proxy(peer: str | None) -> None:
    forged = ((HEADER, "ada"), ("X-Forwarded-For", "10.0.0.5"), ("Forwarded", "for=10.0.0.5"))
    assert at_the_door(access("0.0.0.0", "", HEADER, PROXY, ("lab.example",)), peer, *forged) == (403, NOT_THE_PROXY)


@pytest.mark.parametrize("peer", ["10.0.0.5", "10.1.0.200", "fd00::5", "::ffff:10.0.0.5"])
def test_the_proxy_names_who_asks(peer: str) -> None:
    allowed = access("0.0.0.0", "", HEADER, PROXY, ("lab.example",))
    for name in ("ada", "ada.b-c_d@example.org", "HOUSE\\ada", "ada+lab@example.org", "a" * 128):
        assert at_the_door(allowed, peer, (HEADER.lower(), name)) == (200, "inside")
    strange = ("", " ", "ada, eve", "ada;eve", "ada eve", "(null)", "-", "a" * 129, "ad\u00e4", "<ada>", "ada\x0beve")
    for name in strange:
        assert at_the_door(allowed, peer, (HEADER, name)) == (401, NOBODY), repr(name)
    assert at_the_door(allowed, peer) == (401, NOBODY)
    assert at_the_door(allowed, peer, (HEADER, "ada"), (HEADER, "ada")) == (401, NOBODY)
    assert at_the_door(allowed, peer, (HEADER.replace("-", "_"), "ada")) == (401, NOBODY)


def test_a_web_socket_is_closed_at_the_door() -> None:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    door = Door(PlainTextResponse("inside"), access("0.0.0.0", "", HEADER, PROXY, ("lab.example",)))
    carried_out(door({"type": "websocket", "headers": [], "client": ("10.0.0.6", 1)}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_container_s_port_is_for_the_machine_that_it_is_published_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = tmp_path / "route"
    routes.write_text("Iface Destination Gateway Flags\neth0 000012AC 00000000 0001\neth0 00000000 010012AC 0003\n")
    monkeypatch.setattr(sign_in, "ROUTES", routes)
    allowed = access("0.0.0.0", "0.0.0.0", published_on_loopback=True)
    assert allowed == Access(LOCAL_HOSTS, (*LOOPBACK, ip_network("172.18.0.1")))
    assert at_the_door(allowed, "172.18.0.1") == (200, "inside")
    assert at_the_door(allowed, "127.0.0.1") == (200, "inside")
    assert at_the_door(allowed, "172.18.0.3") == (403, NOT_THIS_MACHINE)
    assert at_the_door(allowed, "192.168.1.9") == (403, NOT_THIS_MACHINE)
    routes.unlink()
    assert access("0.0.0.0", "", published_on_loopback=True).peers == LOOPBACK


@pytest.mark.parametrize("host", ["a..b", "\u00e4" * 70, "no-such-name.invalid", "", "1.2.3.4.5"])
def test_a_name_that_is_none_is_said(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended:
        start.main(host, port=None)
    assert ended.value.exit_code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("host", ["0", "::", "0x0"])
def test_the_address_is_judged_not_how_it_is_written(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        start.main(host, port=None)
    assert BEYOND in capsys.readouterr().err


def test_uploads_are_for_nobody_else_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", "/elsewhere")
    (tmp_path / "uploads").mkdir(mode=0o755)
    folder = make_uploads(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "abc").mkdir()
    (folder / "abc" / "facts.csv").write_text("subject,object\n")
    empty_uploads(folder)
    assert (folder / "abc" / "facts.csv").exists(), "it was sent a moment ago"
    empty_uploads(folder, older_than=-1)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1:99999", "[", "[127.0.0.1]", "[:::::]:7860", "localhost:x", ""])
def test_a_strange_host_has_no_session(host: str) -> None:
    """Who asks is looked for before what the lab was called is checked."""
    sent = Headers({"host": host, "cookie": "rote-lab-7860=secret; rote-lab-None=secret"})
    assert session_of(sent) == "" and not is_local(sent)
