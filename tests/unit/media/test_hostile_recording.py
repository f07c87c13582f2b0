"""What a participant can get written, and what a disk can make of it, must not harm the reading."""

import json
from pathlib import Path

import google_crc32c
import pytest

from bench.fuzz_files import CAMERA, HEADER, SECOND, SOUND, T0_NS, a_journal
from bench.fuzz_net import SOUND_SSRC, rtp
from media import journal, manifest, signing
from media.depayload import h264_size
from media.index import index_leg, packets
from media.journal import JournalDamaged, JournalReader, Record, RecordType
from media.mux import RESULT_NAME, mux, read_result
from media.rtp import HEADER as RTP_HEADER
from media.sdp import OPUS
from media.timing import MAX_LEAP_S, SteadyClock
from media.verification import verify

DEEP = b"[" * 50_000


def journal_of(sounds: list[tuple[int, int]]) -> bytes:
    """Opus packets with these RTP times, 20 ms apart; the first number is the sequence number."""
    seed = HEADER.crc_seed
    body = [HEADER.encode(), journal.encode_track(seed, T0_NS, SOUND)]
    for place, (seq, rtp_time) in enumerate(sounds):
        head = RTP_HEADER.pack(0x80, OPUS.payload_type, seq & 0xFFFF, rtp_time, SOUND_SSRC)
        at_ns = T0_NS + place * SECOND // 50
        packet = head + b"\xf8\xff\xfe"
        body.append(journal.encode_record(seed, RecordType.RTP, SOUND.index, at_ns, packet))
    return b"".join(body)


def test_a_clock_that_leaps_makes_no_long_file_and_loses_no_sound(tmp_path: Path) -> None:
    leaps = [0, 1 << 31, 5, (1 << 31) + 7, 0xFFFF_FFFF]
    sounds = [(n, (n * 960 + leaps[n // 10]) & 0xFFFF_FFFF) for n in range(50)]
    (tmp_path / HEADER.file_name).write_bytes(journal_of(sounds))
    result = mux(tmp_path, tmp_path / "out", with_speech=False)
    assert result.duration_ms < 2_000
    assert sum(file.audio_packets for file in result.files) == 50


def test_a_clock_is_kept_near_the_arrival_however_it_creeps() -> None:
    clock = SteadyClock(48_000)
    first = clock(0, 0)
    for n in range(1, 2_000):
        at_ns = n * SECOND // 50
        extended = clock(n * 59 * 48_000 & 0xFFFF_FFFF, at_ns)
        assert abs(extended - first - at_ns * 48_000 // SECOND) <= MAX_LEAP_S * 48_000


def test_numbers_that_leap_through_all_rounds_end_the_track_and_nothing_else() -> None:
    sounds = [(n * 32_000, n * 960) for n in range(700)]
    reader = JournalReader(Path("x.rrj"), journal_of(sounds))
    leg = index_leg(1, [reader])
    track = leg.tracks[SOUND.index]
    assert track.foreign
    assert len(list(packets(leg, track))) + track.foreign == 700


@pytest.mark.parametrize("rate", [0, -1, 10**9, float("inf"), "9" * 5000])
def test_a_clock_rate_that_nothing_can_be_divided_by_is_refused(rate: object) -> None:
    codec = {"mime": "audio/opus", "payload_type": 111, "channels": 2, "fmtp": ""}
    text = json.dumps({"ssrc": 1, "name": "camera", "codec": {**codec, "clock_rate": rate}})
    with pytest.raises(JournalDamaged):
        journal.parse_track(Record(RecordType.TRACK, 0, 0, text.encode(), 0))


def test_text_nested_without_end_is_damage(tmp_path: Path) -> None:
    for read in (journal.parse_track, journal.parse_mark, journal.parse_gap, journal.parse_seal):
        with pytest.raises(JournalDamaged):
            read(Record(RecordType.MARK, 0, 0, DEEP, 0))
    with pytest.raises(signing.Malformed):
        signing.Signature.decode(DEEP)
    (tmp_path / manifest.FILE_NAME).write_bytes(DEEP)
    with pytest.raises(JournalDamaged):
        manifest.read_manifest(tmp_path)
    (tmp_path / RESULT_NAME).write_bytes(DEEP)
    assert read_result(tmp_path) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("leg", "1"), ("leg", -1), ("label", None), ("session_id", "\ud800"), ("t0_mono_ns", 1.5)],
)
def test_a_header_of_other_types_is_damage_though_its_checksum_holds(
    name: str, value: object
) -> None:
    text = json.loads(HEADER.encode()[12:-4])
    data = json.dumps({**text, name: value}).encode()
    head = journal._PREAMBLE.pack(journal.MAGIC, journal.VERSION, len(data)) + data
    with pytest.raises(JournalDamaged):
        journal.parse_header(head + google_crc32c.value(head).to_bytes(4, "big"))


@pytest.mark.parametrize("path", ["../../etc/passwd", "a" * 5_000, "x/../y.rrj", 7, None])
def test_a_manifest_names_only_journals_beside_it(tmp_path: Path, path: object) -> None:
    (tmp_path / HEADER.file_name).write_bytes(a_journal())
    manifest.recover(tmp_path)
    book = json.loads((tmp_path / manifest.FILE_NAME).read_bytes())
    book["journals"][0]["path"] = path
    (tmp_path / manifest.FILE_NAME).write_text(json.dumps(book))
    found = verify(tmp_path)
    assert [problem.code for problem in found.problems] == ["manifest_damaged"]


def test_a_parameter_set_that_claims_a_wall_has_no_size() -> None:
    a_wall = bytes.fromhex("67420000dc00001fffffe0")  # 2**21 macroblocks wide, one high
    assert h264_size(a_wall) is None
    assert h264_size(bytes.fromhex("67420000dde0")) == (16, 16)


def test_a_journal_of_ours_reads_as_before() -> None:
    reader = JournalReader(Path("x.rrj"), a_journal())
    assert reader.header == HEADER
    assert [r.type for r in reader.records()][:2] == [RecordType.TRACK, RecordType.TRACK]
    assert journal.parse_track(next(reader.records())) == CAMERA
    assert rtp(1)[0] == 0x80
