"""The gate (T7) over random histories: nothing is recorded before the room is live, while
a track is muted, or after the end, whatever comes in whichever order.
"""

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bench.fuzz_net import LEVEL, MID, SOUND_SSRC, rtp
from bench.fuzz_relay import FORM_PLAIN, FORM_RTCP, FORM_RTP, Guarded
from core.ids import ParticipantId
from media.rtp import build_nack, build_pli, build_sender_report
from media.sdp import OPUS
from media.tracks import TrackName
from tests.support.relay import ListeningTap

WHO = st.sampled_from([0, 1])
NAMES = ("alice", "bob")


class Gate(RuleBasedStateMachine):
    """A real node; two parties with keys, who send what they like when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.guarded = Guarded(is_live=False)
        self.taps = [ListeningTap(), ListeningTap()]
        self.is_live = self.is_over = False
        self.muted: set[tuple[int, TrackName]] = set()
        self.seq = 1
        self.expected = [0, 0]
        self.loop = self.guarded.loop

    def party(self, participant_id: ParticipantId, leg: int, label: str, role: str) -> ListeningTap:
        """As the recorder: a tap for each participant."""
        return self.taps[NAMES.index(participant_id)]

    @initialize()
    def begin(self) -> None:
        self.peers = self.guarded.room.peers()

    def _take(self, form: int, who: int, packet: bytes) -> None:
        self.guarded.lay(form, who, packet, 0)
        self.guarded.take(1)

    @precondition(lambda self: not self.is_over)
    @rule(who=WHO, is_sound=st.booleans(), skip=st.integers(1, 300))
    def speak(self, who: int, is_sound: bool, skip: int) -> None:
        self.seq = self.seq + skip & 0xFFFF
        name = TrackName.MICROPHONE if is_sound else TrackName.CAMERA
        mid = self.peers[who].published[name].mid.encode()
        extension = bytes([0x10 | len(mid) - 1]) + mid
        packet = (
            rtp(self.seq, SOUND_SSRC, OPUS.payload_type, b"\xf8\xff\xfe", extension + LEVEL)
            if is_sound
            else rtp(self.seq, extension=extension)
        )
        self._take(FORM_RTP, who, packet)
        is_open = self.is_live and (who, name) not in self.muted
        self.expected[who] += is_open

    @precondition(lambda self: not self.is_over)
    @rule(who=WHO, body=st.binary(min_size=12, max_size=60), form=st.sampled_from([0, 1, 2, 3]))
    def send_anything(self, who: int, body: bytes, form: int) -> None:
        before = [len(tap.packets) for tap in self.taps]
        self._take(form, who, body)
        if not self.is_live:
            assert [len(tap.packets) for tap in self.taps] == before
        self.expected = [len(tap.packets) for tap in self.taps]

    @precondition(lambda self: not self.is_over)
    @rule(who=WHO)
    def report(self, who: int) -> None:
        compound = build_sender_report(
            SOUND_SSRC, ntp_time=1 << 40, rtp_time=1, packets=1, octets=1, cname="x"
        )
        self._take(FORM_RTCP, who, compound + build_pli(1, 1) + build_nack(1, 1, [self.seq]))

    @precondition(lambda self: not self.is_over)
    @rule(data=st.binary(min_size=12, max_size=60))
    def a_stranger_sends(self, data: bytes) -> None:
        self._take(FORM_PLAIN, 2, b"\x80" + data)

    @precondition(lambda self: not self.is_live and not self.is_over)
    @rule()
    def go_live(self) -> None:
        with self.guarded.inside():
            self.guarded.room.go_live(self)
        self.is_live = True

    @precondition(lambda self: not self.is_over)
    @rule(who=WHO, name=st.sampled_from([TrackName.CAMERA, TrackName.MICROPHONE]), on=st.booleans())
    def mute(self, who: int, name: TrackName, on: bool) -> None:
        with self.guarded.inside():
            self.peers[who].set_muted(name, on)
        (self.muted.add if on else self.muted.discard)((who, name))

    @precondition(lambda self: self.is_live and not self.is_over)
    @rule()
    def end(self) -> None:
        self.loop.run_until_complete(self.guarded.room.end())
        self.is_over = True

    @precondition(lambda self: self.is_over)
    @rule(who=WHO)
    def speak_after_the_end(self, who: int) -> None:
        self._take(FORM_RTP, who, rtp(self.seq, extension=MID))

    @invariant()
    def what_is_recorded_came_through_an_open_gate(self) -> None:
        assert [len(tap.packets) for tap in self.taps] == self.expected

    def teardown(self) -> None:
        self.guarded.close()
        asyncio.set_event_loop(None)


TestGate = Gate.TestCase
TestGate.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
