"""media/_reel.c against the Python that it stands for: the same files, to the byte.

Storms of packets as no sender sends them go through both; so do the journals of earlier versions,
and journals that are damaged. What is refused as unusual is made by Python in either case.
"""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.ids import ParticipantId, SessionId
from media import index, journal, mux, reel, scan
from media.journal import JournalHeader, Mark, MarkKind, SenderReport, TrackRecord
from media.tracks import CodecInfo, TrackName
from tests.support.media_material import OPUS, VIDEO, Line, Speaker, flash_and_beep, record

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "v1"
T0_NS = 5_000_000_000
VP8 = VIDEO["vp8"]

pytestmark = pytest.mark.skipif(reel.built is None, reason="not built here")


def both(recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> mux.MuxResult | None:
    """Mux by C and by Python, and assert that there is no difference. None: nothing to show."""
    answers: list[mux.MuxResult | str] = []
    for name in ("c", "python"):
        with monkeypatch.context() as patch:
            if name == "python":
                patch.setattr(reel, "built", None)
            try:
                answers.append(mux.mux(recording, tmp_path / name, with_speech=False))
            except mux.MuxFailed as problem:
                answers.append(problem.message)
    in_c, in_python = answers
    if isinstance(in_c, mux.MuxResult):
        for file in in_c.files:
            ours, theirs = (tmp_path / name / file.path for name in ("c", "python"))
            assert ours.read_bytes() == theirs.read_bytes(), file.path
    assert in_c == in_python
    return in_c if isinstance(in_c, mux.MuxResult) else None


@pytest.fixture
def no_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where C would leave the work to Python."""

    def refuse(*_: object) -> None:
        raise AssertionError("left to Python")

    monkeypatch.setattr(mux, "_written", refuse)


# --- storms --------------------------------------------------------------------------------------


class Storm:
    """One party's journals, written by chance: a camera and a microphone over some legs."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.directory = directory
        directory.mkdir(parents=True)
        at_ns = T0_NS + self.dice.randrange(3_000_000_000)
        self.segment_ends = self.dice.choice([10_000, 60, 200])
        for leg in range(1, self.dice.choice([2, 2, 3, 4])):
            at_ns = self.write_leg(leg, at_ns) + self.dice.randrange(4_000_000_000)

    def write_leg(self, leg: int, at_ns: int) -> int:
        records = list(self.records(leg, at_ns))
        segments = range(0, len(records), self.segment_ends)
        described = [records[0], records[1]]
        for number, first in enumerate(segments):
            header = self.header(leg, number)
            chosen = records[first : first + self.segment_ends]
            if number:
                # Every segment describes its tracks, and may repeat what was not known to be kept.
                chosen = described + records[max(0, first - 3) : first] + chosen
            text = b"".join(data for _, data in chosen)
            (self.directory / header.file_name).write_bytes(header.encode() + text)
        return records[-1][0]

    def header(self, leg: int, segment: int) -> JournalHeader:
        return JournalHeader(
            session_id=SessionId("5" * 32), participant_id=ParticipantId("a" * 32), leg=leg,
            segment=segment, role="petitioner", label="", t0_mono_ns=T0_NS, t0_wall_ns=0,
            boot_id="",
        )  # fmt: skip

    def records(self, leg: int, at_ns: int) -> Iterator[tuple[int, bytes]]:
        """Times and records of a leg in the order of their arrival."""
        dice, seed = self.dice, self.header(leg, 0).crc_seed
        for number, (codec, name) in enumerate(
            ((VP8, TrackName.CAMERA), (OPUS, TrackName.MICROPHONE))
        ):
            yield at_ns, journal.encode_track(seed, at_ns, TrackRecord(number, 1, name, codec))
        arrivals = [
            *self.reports(at_ns),
            *((at, 0, packet) for at, packet in self.late(self.pictures(at_ns))),
            *((at, 1, packet) for at, packet in self.late(self.sounds(at_ns))),
        ]
        for arrives_ns, track, item in sorted(arrivals, key=lambda one: one[0]):
            if isinstance(item, SenderReport):
                yield arrives_ns, journal.encode_sender_report(seed, track, arrives_ns, item)
            else:
                assert isinstance(item, bytes)
                yield arrives_ns, journal.encode_record(seed, 2, track, arrives_ns, item)
            if dice.random() < 0.01:
                mark = Mark(dice.choice(list(MarkKind)), str(dice.randrange(300)))
                yield arrives_ns, journal.encode_mark(seed, track, arrives_ns, mark)
            if dice.random() < 0.01:
                stranger = self.packet(VP8, 1, 1, False, b"stranger")
                yield arrives_ns, journal.encode_record(seed, 2, 77, arrives_ns, stranger)

    def reports(self, at_ns: int) -> Iterator[tuple[int, int, SenderReport]]:
        dice = self.dice
        if dice.random() < 0.3:
            return
        wrong = dice.choice([0, 0, 10**10])
        for track, rate in ((0, VP8.clock_rate), (1, OPUS.clock_rate)):
            for second in range(4):
                since_ns = at_ns - T0_NS + second * 10**9 + dice.randrange(10**6)
                ntp = (since_ns + 3_900_000_000 * 10**9 << 32) // 10**9
                ticks = (since_ns * rate // 10**9 + dice.choice([0, 0, wrong])) & 0xFFFFFFFF
                arrives_ns = T0_NS + since_ns + dice.randrange(60_000_000)
                yield arrives_ns, track, SenderReport(ntp, ticks)

    def late(self, sent: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        """What a bad line does: losses, repairs, repeats, another order."""
        dice = self.dice
        loss = dice.choice([0.0, 0.0, 0.01, 0.1])
        for at_ns, packet in sent:
            lot = dice.random()
            if lot < loss:
                continue
            arrives_ns = at_ns + dice.randrange(15_000_000)
            if lot > 0.95:
                arrives_ns += dice.randrange(300_000_000)
            yield arrives_ns, packet
            if dice.random() < 0.02:
                yield arrives_ns + dice.randrange(10**8), packet

    def pictures(self, at_ns: int) -> Iterator[tuple[int, bytes]]:
        dice = self.dice
        seq, ticks, picture_id = dice.getrandbits(16), dice.getrandbits(32), dice.getrandbits(15)
        for number in range(dice.randrange(1, 90)):
            if dice.random() < 0.02:
                at_ns += dice.randrange(5 * 10**9)
            if dice.random() < 0.01:
                ticks += dice.getrandbits(32)
            at_ns += 40_000_000
            ticks += 3600
            picture_id += dice.choice([1] * 20 + [2])
            frame = self.frame(number)
            step = dice.choice([3, 400, 1100, 1100, 1100])
            pieces = [frame[i : i + step] for i in range(0, len(frame), step)][:40]
            for which, piece in enumerate(pieces):
                payload = self.descriptor(which == 0, picture_id) + piece
                is_last = which == len(pieces) - 1 and dice.random() > 0.05
                yield at_ns, self.packet(VP8, seq, ticks, is_last, payload)
                seq += 1
            if dice.random() < 0.1:  # only padding: with the last time, or an own one
                yield at_ns, self.packet(VP8, seq, ticks + dice.choice([0, 0, 9]), False, b"")
                seq += 1
            if dice.random() < 0.005:
                seq += dice.choice([300, 40_000])

    def frame(self, number: int) -> bytes:
        dice = self.dice
        if number % 20 == 0 or dice.random() < 0.05:
            sides = dice.choice([(640, 480), (320, 240), (1280, 720)] * 5 + [(0, 480)])
            size = b"".join(side.to_bytes(2, "little") for side in sides)
            start = dice.choice([b"\x9d\x01\x2a"] * 9 + [b"bad"])
            return b"\x10\x02\x00" + start + size + dice.randbytes(dice.choice([0, 90, 5000]))
        return b"\x11" + dice.randbytes(dice.choice([0, 1, 2, 80, 1500, 4000]))

    def descriptor(self, starts: bool, picture_id: int) -> bytes:
        dice = self.dice
        first = 0x10 if starts else 0
        match dice.randrange(2000):
            case 0:
                return b""
            case 1:
                return bytes([first | 0x80, 0xF0, 0x80])
            case number if number < 60:
                return bytes([first])
            case number if number < 120:
                return bytes([first | 0x80, 0x80, picture_id & 0x7F])
            case number if number < 160:
                return (
                    bytes([first | 0x80, 0xF0, 0x80 | picture_id >> 8 & 0x7F, picture_id & 0xFF])
                    + b"\x05\x06"
                )
        return bytes([first | 0x80, 0x80, 0x80 | picture_id >> 8 & 0x7F, picture_id & 0xFF])

    def sounds(self, at_ns: int) -> Iterator[tuple[int, bytes]]:
        dice = self.dice
        seq, start = dice.getrandbits(16), dice.getrandbits(32)
        speed = dice.choice([1.0, 1.0, 1.002, 0.998])
        config = dice.choice([0x78, 0x7B, 0xE0, 0x0A])
        begins_ns = at_ns
        for _ in range(dice.randrange(1, 250)):
            at_ns += 20_000_000
            if dice.random() < 0.01:
                at_ns += dice.randrange(3 * 10**9)
            ticks = start + int((at_ns - begins_ns) * speed) * 48 // 1_000_000
            head = dice.choice([config] * 30 + [dice.randrange(256)])
            size = dice.choice([0, 1, 2, 60, 80, 80, 80])
            payload = (bytes([head]) + dice.randbytes(size)) if dice.random() > 0.01 else b""
            yield at_ns, self.packet(OPUS, seq, ticks, False, payload)
            seq += 1

    def packet(self, codec: CodecInfo, seq: int, ticks: int, marker: bool, payload: bytes) -> bytes:
        """An RTP packet with whatever may stand in one, sometimes wrongly."""
        dice = self.dice
        first, type_byte, middle, end = 0x80, codec.payload_type, b"", b""
        if dice.random() < 0.3:
            words = dice.choice([0, 1, 1, 2])
            first |= 0x10
            middle = b"\xbe\xde" + words.to_bytes(2, "big") + dice.randbytes(4 * words)
        if dice.random() < 0.02:
            first |= 2
            middle = dice.randbytes(8) + middle
        if dice.random() < 0.05 or not payload:
            padding = dice.choice([1, 4, 200])
            first |= 0x20
            end = bytes(padding - 1) + bytes([padding])
        match dice.randrange(1500):
            case 0:
                first ^= 0x40
            case 1:
                type_byte ^= 1
            case 2:
                end = end[:-1] + b"\xff" if end else b""
            case 3:
                return bytes([first, type_byte])
        head = bytes([first, type_byte | marker << 7]) + (seq & 0xFFFF).to_bytes(2, "big")
        return (
            head + (ticks & 0xFFFFFFFF).to_bytes(4, "big") + dice.randbytes(4)
            + middle + payload + end
        )  # fmt: skip


def test_storms_of_packets_make_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, int] = {"files": 0, "pictures": 0, "sounds": 0, "lost": 0, "gaps": 0}
    for seed in range(60):
        directory = tmp_path / str(seed)
        Storm(directory / "rec", seed)
        result = both(directory / "rec", directory, monkeypatch)
        for file in result.files if result else ():
            seen["files"] += 1
            seen["pictures"] += file.video_frames
            seen["sounds"] += file.audio_packets
            seen["lost"] += file.lost_frames
            seen["gaps"] += len(file.gaps)
    assert seen["files"] > 55 and seen["pictures"] > 700 and seen["sounds"] > 4000, seen
    assert seen["lost"] > 200 and seen["gaps"] > 100, seen  # and it was no fair weather


def test_storms_are_not_left_to_python(tmp_path: Path, no_way_out: None) -> None:
    for seed in range(5):
        Storm(tmp_path / str(seed) / "rec", seed)
        mux.mux(tmp_path / str(seed) / "rec", tmp_path / str(seed), with_speech=False)


def test_a_leg_is_indexed_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (
        "keys", "reports", "anchors", "first_rtp_time", "first_arrival_ns", "last_arrival_ns",
        "foreign", "largest",
    )  # fmt: skip
    for seed in range(20):
        Storm(tmp_path / str(seed), seed)
        paths = journal.journals_in(tmp_path / str(seed))
        readers = [journal.JournalReader(path, path.read_bytes()) for path in paths]
        in_c = index.index_leg(1, [one for one in readers if one.header.leg == 1])
        with monkeypatch.context() as patch:
            patch.setattr(reel, "built", None)
            in_python = index.index_leg(1, in_c.readers)
        assert (in_c.marks, in_c.lost) == (in_python.marks, in_python.lost)
        for number, track in in_python.tracks.items():
            for name in names:
                assert getattr(in_c.tracks[number], name) == getattr(track, name), name


# --- what there is besides -----------------------------------------------------------------------


def test_real_talks_make_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = Line(loss=0.08, is_repaired=False, duplicates=0.05)
    speakers = [
        Speaker("a" * 32, flash_and_beep(3.0), clock_drift=2e-4, padding=True),
        Speaker("b" * 32, flash_and_beep(3.0), line=line, starts_ms=700),
        Speaker("b" * 32, flash_and_beep(2.0), leg=2, starts_ms=9000, reports=False),
        Speaker("c" * 32, flash_and_beep(2.0), has_video=False),
        Speaker("d" * 32, flash_and_beep(2.0), has_audio=False),
        Speaker("e" * 32, flash_and_beep(2.0, "h264")),
    ]
    record(tmp_path / "rec", speakers)
    result = both(tmp_path / "rec", tmp_path, monkeypatch)
    assert result is not None and len(result.files) == 5


def test_golden_recordings_make_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Path(shutil.copytree(GOLDEN, tmp_path / "recording"))
    assert both(recording, tmp_path, monkeypatch) is not None


def test_damage_costs_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6):
        directory = tmp_path / str(seed)
        Storm(directory / "rec", seed)
        dice = random.Random(seed)
        for path in journal.journals_in(directory / "rec"):
            data = bytearray(path.read_bytes())
            data[dice.randrange(len(data) // 2, len(data))] ^= 1 << dice.randrange(8)
            path.write_bytes(data[: len(data) - dice.choice([0, 5])])
        both(directory / "rec", directory, monkeypatch)


def test_a_journal_is_surveyed_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Storm(tmp_path / "rec", 3)
    data = journal.journals_in(tmp_path / "rec")[0].read_bytes()
    for cut in (len(data), len(data) - 1, len(data) // 2, 500):
        answers = []
        for built in (reel.built, None):
            reader = journal.JournalReader(Path("a"), data[:cut])
            with monkeypatch.context() as patch:
                patch.setattr(reel, "built", built)
                answers.append((scan.survey(reader), reader.damage, reader.valid_end))
        assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("at_ns", "rate"), [((1 << 63) + 5, 90_000), (T0_NS + (1 << 60), 90_000), (T0_NS + 5, 7)]
)
def test_numbers_without_end_are_left_to_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_ns: int, rate: int
) -> None:
    storm = Storm(tmp_path / "rec", 1)
    codec = CodecInfo(VP8.mime, VP8.payload_type, rate, 1, "")
    header = storm.header(9, 0)
    seed = header.crc_seed
    track = TrackRecord(0, 1, TrackName.CAMERA, codec)
    frame = b"\x90\x80\x01\x10\x02\x00\x9d\x01\x2a" + bytes([64, 0, 64, 0])
    packet = bytes([0x80, 0x80 | codec.payload_type, 0, 1]) + bytes(8) + frame
    (tmp_path / "rec" / header.file_name).write_bytes(
        header.encode()
        + journal.encode_track(seed, T0_NS, track)
        + journal.encode_record(seed, 2, 0, at_ns, packet)
    )
    readers = [journal.JournalReader(Path("a"), (tmp_path / "rec" / header.file_name).read_bytes())]
    assert index._indexed_quickly(9, readers) is None
    if at_ns < T0_NS + 10**9:  # else the file would be of years
        both(tmp_path / "rec", tmp_path, monkeypatch)
