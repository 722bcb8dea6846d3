"""The ledger of a GPU's memory, with a clock of our own."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from engine.serving import traffic
from engine.serving.processes.room import GONE_SECONDS, IDLE_SECONDS, TURN_SECONDS, UNCLAIMED_SECONDS, Room

GPU, BOTH = ("gpu 0",), ("gpu 0", "gpu 1")


@dataclass
class Server:
    url: str
    part: float
    state: str = "ready"
    ready_since: float = 0.0
    devices: tuple[str, ...] = ("gpu 0",)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(traffic, "_answered", {})
    monkeypatch.setattr(traffic, "_asking", traffic.Counter())
    return Clock()


def nobody(server: Server) -> None:
    raise AssertionError(f"{server.url} was ended")


def answered(server: Server, at: float) -> None:
    traffic._answered[server.url] = at


def test_they_stand_beside_each_other_as_far_as_they_fit(clock: Clock) -> None:
    room, a, b = Room[Server](clock), Server("a", 0.5, ready_since=clock.now), Server("b", 0.4, ready_since=clock.now)
    assert room.make("a", 0.5, GPU, [], nobody)
    assert room.make("b", 0.4, GPU, [a], nobody)
    assert not room.make("c", 0.1, GPU, [a, b], nobody)


def test_one_starts_after_the_other(clock: Clock) -> None:
    room: Room[Server] = Room(clock)
    for state in ("starting", "restarting"):
        assert not room.make("b", 0.1, GPU, [Server("a", 0.1, state)], nobody)
    assert room.make("b", 0.1, GPU, [Server("a", 0.1)], nobody)


def test_who_leaves_has_answered_and_had_the_turn(clock: Clock) -> None:
    room, server = Room[Server](clock), Server("a", 0.6, ready_since=clock.now)
    ended: list[Server] = []

    def asked() -> bool:
        return room.make("b", 0.6, GPU, [server], ended.append)

    assert not asked(), "it has not answered yet"
    answered(server, clock.now + 1)
    clock.now += 1 + IDLE_SECONDS / 2
    assert not asked(), "its person may go on"
    clock.now += IDLE_SECONDS
    with traffic.asking("a"):
        assert not asked(), "it is in the middle of an answer"
    answered(server, clock.now)
    assert not asked()
    clock.now += TURN_SECONDS
    answered(server, clock.now)
    assert asked() and ended == [server], "its turn is over, though somebody goes on asking"


def test_whoever_is_asked_for_by_nobody_leaves_after_a_while(clock: Clock) -> None:
    room, server = Room[Server](clock), Server("a", 0.6, ready_since=clock.now)
    clock.now += UNCLAIMED_SECONDS - 1
    assert not room.make("b", 0.6, GPU, [server], nobody)
    clock.now += 2
    assert room.make("b", 0.6, GPU, [server], lambda _: None)
    assert room.make("c", 0.6, GPU, [Server("b", 0.6, "failed")], lambda _: None)


def test_nobody_is_ended_in_vain(clock: Clock) -> None:
    idle, busy = Server("a", 0.3), Server("b", 0.5)
    answered(idle, 990.0)
    with traffic.asking("b"):
        assert not Room[Server](clock).make("c", 0.5, GPU, [idle, busy], nobody), "ending the idle one is not enough"


def test_the_longest_unused_leaves_and_no_more_than_needed(clock: Clock) -> None:
    servers = [Server(name, 0.3) for name in "abc"]
    for server, at in zip(servers, (980.0, 970.0, 990.0), strict=True):
        answered(server, at)
    ended: list[Server] = []
    assert Room[Server](clock).make("d", 0.3, GPU, servers, ended.append)
    assert [server.url for server in ended] == ["b"]


def test_who_waits_longest_comes_first_unless_gone(clock: Clock) -> None:
    room, there = Room[Server](clock), [Server("a", 0.9, ready_since=clock.now)]
    for key in ("first", "second"):
        assert not room.make(key, 0.5, GPU, there, nobody)
    assert not room.make("second", 0.5, GPU, [], nobody)
    clock.now += GONE_SECONDS + 1
    assert room.make("second", 0.5, GPU, [], nobody)


def test_each_gpu_has_an_account_of_its_own(clock: Clock) -> None:
    both = Server("both", 0.6, ready_since=clock.now, devices=BOTH)
    first = Server("first", 0.3, ready_since=clock.now)
    second = Server("second", 0.6, ready_since=clock.now, devices=("gpu 1",))
    for part, devices, there, fits in (
        (0.3, BOTH, [both], True),
        (0.4, BOTH, [both], False),
        (0.4, ("gpu 1",), [both], False),
        (0.6, ("gpu 1",), [first], True),
        (0.6, BOTH, [first], True),
        (0.4, BOTH, [first, second], False),
        (0.4, ("gpu 2",), [both, first, second], True),
    ):
        assert Room[Server](clock).make("new", part, devices, there, nobody) == fits, (part, devices, there)


def test_only_who_stands_on_a_full_gpu_leaves_it(clock: Clock) -> None:
    elsewhere, early = Server("elsewhere", 0.6), Server("early", 0.6, devices=("gpu 1",))
    both = Server("both", 0.3, devices=BOTH)
    for server, at in ((elsewhere, 970.0), (early, 980.0), (both, 990.0)):
        answered(server, at)
    for devices, gone in ((("gpu 1",), ["early"]), (("gpu 2",), []), (BOTH, ["elsewhere", "early"])):
        ended: list[Server] = []
        assert Room[Server](clock).make("new", 0.6, devices, [elsewhere, early, both], ended.append)
        assert [server.url for server in ended] == gone


def test_who_need_not_leave_since_a_later_one_makes_more_room_stays(clock: Clock) -> None:
    small, large = Server("small", 0.2), Server("large", 0.6, devices=BOTH)
    answered(small, 970.0)
    answered(large, 980.0)
    ended: list[Server] = []
    assert Room[Server](clock).make("new", 0.7, BOTH, [small, large], ended.append)
    assert [server.url for server in ended] == ["large"]
