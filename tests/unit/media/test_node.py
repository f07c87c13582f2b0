"""The guard: in what order the datagrams of one batch are looked at."""

from collections.abc import Iterator

import pytest

from bench.fuzz_net import compounds, packets
from bench.fuzz_relay import FORM_CHECK, FORM_PLAIN, FORM_RTCP, FORM_RTP, Guarded

ALICE, BOB, NOBODY = range(3)
CHECK = b"\x80\x2a\0\x08" + bytes(8)


class Watched(Guarded):
    """A node that tells what it looks at, and when what came of it goes out."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.seen: list[str] = []
        node, outbox = self.node, self.node._socket.outbox
        monkeypatch.setattr(node._router, "lane", None)  # it takes media only, and in its order
        for owner, name, word in (
            (node._router, "receive", "media"),
            (node, "_rtcp", "report"),
            (node, "_stun", "check"),
            (node, "_dtls", "handshake"),
            (outbox, "flush", "out"),
        ):
            monkeypatch.setattr(owner, name, lambda *_, word=word: self.seen.append(word))

    def takes(self, *batch: tuple[int, int, bytes]) -> list[str]:
        for slot, (form, who, body) in enumerate(batch):
            self.lay(form, who, body, slot)
        self.take(len(batch))
        return self.seen


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    watched = Watched(monkeypatch)
    yield watched
    monkeypatch.undo()
    watched.close()


def test_media_goes_out_before_reports_and_checks_are_looked_at(node: Watched) -> None:
    assert node.takes(
        (FORM_RTCP, ALICE, compounds()[0]),
        (FORM_CHECK, BOB, CHECK),
        (FORM_RTP, ALICE, packets()[0]),
        (FORM_RTCP, BOB, compounds()[0]),
        (FORM_RTP, BOB, packets()[0]),
    ) == ["media", "media", "out", "report", "check", "report", "out"]


def test_what_a_client_says_while_it_connects_keeps_its_order(node: Watched) -> None:
    node.room.peers()[ALICE].leg.is_connected = False
    assert node.takes(
        (FORM_CHECK, ALICE, CHECK),
        (FORM_PLAIN, ALICE, bytes([22]) * 40),
        (FORM_CHECK, NOBODY, CHECK),
        (FORM_RTP, BOB, packets()[0]),
    ) == ["check", "handshake", "check", "media", "out"]


def test_media_alone_goes_out_once(node: Watched) -> None:
    assert node.takes(
        (FORM_RTP, ALICE, packets()[0]), (FORM_RTP, BOB, packets()[0])
    ) == ["media", "media", "out"]  # fmt: skip
