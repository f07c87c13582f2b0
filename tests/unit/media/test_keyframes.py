"""Where a keyframe begins, and what the cache still knows of the newest."""

import pytest

from media.keyframes import begins_keyframe, has_keyframe, newest_keyframe
from media.sdp import H264, VP8
from tests.support.relay import Relay, rtp

VP8_KEY = b"\x10" + bytes([0x10, 0, 0]) + b"\x9d\x01\x2a" + b"\x40\x01\xf0\x00" + bytes(20)
VP8_DELTA = b"\x10" + bytes([0x11, 0, 0]) + bytes(30)


@pytest.mark.parametrize(
    ("payload", "mime", "is_key"),
    [
        (VP8_KEY, VP8.mime, True),
        (VP8_DELTA, VP8.mime, False),
        (b"\x00" + VP8_KEY[1:], VP8.mime, False),  # a later packet of a frame
        (bytes([0x67, 1, 2, 3]), H264.mime, True),  # SPS
        (bytes([0x78, 0, 4, 0x67, 1, 2]), H264.mime, True),  # STAP-A of SPS and more
        (bytes([0x7C, 0x85, 1, 2]), H264.mime, True),  # FU-A, first of an IDR
        (bytes([0x7C, 0x05, 1, 2]), H264.mime, False),  # FU-A, a later one
        (bytes([0x61, 1, 2, 3]), H264.mime, False),
        (b"", VP8.mime, False),
        (b"", H264.mime, False),
    ],
)
def test_where_a_keyframe_begins(payload: bytes, mime: str, is_key: bool) -> None:
    assert begins_keyframe(rtp(1, payload=payload), mime) is is_key


class Camera:
    """Alice's camera: pictures of so many packets, the last of each with the marker bit."""

    def __init__(self) -> None:
        self.relay = Relay()
        self.publication = self.relay.camera
        self._seq, self._timestamp = 100, 0

    def sends(self, first: bytes, packets: int, *, missing_last: int = 0) -> None:
        self._timestamp += 3000
        for at in range(packets):
            is_last = at == packets - 1
            packet = rtp(
                self._seq,
                timestamp=self._timestamp,
                payload_type=VP8.payload_type | (0x80 if is_last else 0),
                payload=first if at == 0 else b"\x00" + VP8_DELTA[1:],
            )
            self._seq += 1
            if at < packets - missing_last:
                self.relay.receive(self.relay.alice, packet)

    @property
    def edge(self) -> int:
        """The publication's number of the packet that comes next."""
        return self.publication.next_seq


def test_the_newest_keyframe_lies_between_its_first_and_its_last_packet() -> None:
    camera = Camera()
    camera.sends(VP8_KEY, 3)
    camera.sends(VP8_DELTA, 2)
    began = camera.edge
    camera.sends(VP8_KEY, 4)
    camera.sends(VP8_DELTA, 1)
    newest = newest_keyframe(camera.publication)
    assert newest is not None
    assert (newest.first_seq, newest.last_seq) == (began, began + 3)
    assert not newest.is_coming


def test_a_keyframe_is_coming_until_its_marker_is_there() -> None:
    camera = Camera()
    camera.sends(VP8_DELTA, 1)
    camera.sends(VP8_KEY, 4, missing_last=2)
    coming = newest_keyframe(camera.publication)
    assert coming is not None
    assert coming.is_coming


def test_a_keyframe_will_do_for_whom_it_begins_and_ends_late_enough() -> None:
    camera = Camera()
    camera.sends(VP8_DELTA, 2)
    before = camera.edge
    camera.sends(VP8_KEY, 3)
    after = camera.edge
    newest = newest_keyframe(camera.publication)
    assert newest is not None
    wanted = camera.publication
    wanted.keyframe_from_seq = wanted.keyframe_missed_seq = before
    assert newest.will_do(wanted)
    wanted.keyframe_missed_seq = after - 1  # lost in its middle: the end is still to come to them
    assert newest.will_do(wanted)
    wanted.keyframe_missed_seq = after
    assert not newest.will_do(wanted)
    wanted.keyframe_from_seq, wanted.keyframe_missed_seq = before + 1, before
    assert not newest.will_do(wanted)  # somebody got nothing before its second packet


def test_pictures_without_a_keyframe_have_none() -> None:
    camera = Camera()
    assert newest_keyframe(camera.publication) is None  # nothing has come at all
    for _ in range(400):
        camera.sends(VP8_DELTA, 1)
    assert newest_keyframe(camera.publication) is None


def test_a_keyframe_counts_since_the_last_look() -> None:
    camera = Camera()
    camera.sends(VP8_KEY, 2)
    seen = camera.edge
    assert has_keyframe(camera.publication, seen - 2)
    camera.sends(VP8_DELTA, 2)
    assert not has_keyframe(camera.publication, seen)
    camera.sends(VP8_KEY, 1)
    assert has_keyframe(camera.publication, seen)
