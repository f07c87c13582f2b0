"""A journal keeps what it was given, says what it lost, and is cut only where it is torn."""

import contextlib
import errno
import json
import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Malformed
from core.ids import ParticipantId, SessionId
from media import inspection, journal, manifest
from media.journal import (
    JournalDamaged,
    JournalHeader,
    JournalUnreadable,
    LostPackets,
    Mark,
    MarkKind,
    RecordType,
    Seal,
    SealReason,
    SenderReport,
    TrackRecord,
)
from media.tracks import CodecInfo, TrackName
from media.unread import Stretch
from media.verification import verify
from tests.support.journals import small_journal

VP8 = CodecInfo("video/VP8", 96, 90_000, 1, "")


def test_what_the_disk_does_not_give_back_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_journal(tmp_path, "s")
    manifest.recover(tmp_path)
    (path,) = journal.journals_in(tmp_path)

    def bad_sector(fd: int, buffers: object, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", bad_sector)
    with (
        pytest.raises(JournalUnreadable, match=f"{path.name} back: Input/output error"),
        journal.open_journal(path),
    ):
        pytest.fail("a mapping that may end in SIGBUS")
    found = verify(tmp_path)
    assert not found.is_intact
    assert [(one.path, one.code) for one in found.problems] == [(path.name, "disk")]
    assert "Input/output error" in inspection.inspect_text(tmp_path)


def make_header(**changes: object) -> JournalHeader:
    values: dict[str, object] = {
        "session_id": SessionId("s" * 32),
        "participant_id": ParticipantId("p" * 32),
        "leg": 1,
        "segment": 0,
        "role": "petitioner",
        "label": "康定市 1 号终端",
        "t0_mono_ns": 5_000_000_000,
        "t0_wall_ns": 1_760_000_000_000_000_000,
        "boot_id": "boot",
    }
    return JournalHeader(**(values | changes))  # type: ignore[arg-type]


def packets(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(rng.randint(1, 300)) for _ in range(count)]


def write_journal(directory: Path, payloads: list[bytes]) -> tuple[Path, list[bytes]]:
    """A journal as the recorder leaves it when killed; also its pieces: header, then records."""
    header = make_header()
    pieces = [header.encode()]
    track = TrackRecord(0, 1234, TrackName.CAMERA, VP8)
    pieces.append(journal.encode_track(header.crc_seed, 5_000_000_000, track))
    for index, payload in enumerate(payloads):
        at_ns = 5_000_000_000 + index * 20_000_000
        pieces.append(journal.encode_record(header.crc_seed, RecordType.RTP, 0, at_ns, payload))
    path = directory / header.file_name
    path.write_bytes(b"".join(pieces))
    return path, pieces


def read_payloads(path: Path) -> list[bytes]:
    with journal.open_journal(path) as reader:
        return [r.payload for r in reader.records() if r.type is RecordType.RTP]


def test_every_kind_of_record_reads_back_as_written(tmp_path: Path) -> None:
    header = make_header()
    seed = header.crc_seed
    track = TrackRecord(
        3, 0xFFFFFFFF, TrackName.MICROPHONE, CodecInfo("audio/opus", 111, 48_000, 2, "x=1")
    )
    report = SenderReport((1 << 64) - 1, 0xFFFFFFFF)
    mark = Mark(MarkKind.MUTE, "静音")
    gap = LostPackets(1, 2, 3, "buffer_full")
    seal = Seal(SealReason.ENDED, 4, 5, "00")
    path = tmp_path / header.file_name
    path.write_bytes(
        header.encode()
        + journal.encode_track(seed, 10, track)
        + journal.encode_sender_report(seed, 3, 11, report)
        + journal.encode_mark(seed, 3, 12, mark)
        + journal.encode_gap(seed, journal.NO_TRACK, gap)
        + journal.encode_seal(seed, 13, seal)
    )
    with journal.open_journal(path) as reader:
        assert reader.header == header
        found = list(reader.records())
        assert journal.parse_track(found[0]) == track
        assert journal.parse_sender_report(found[1]) == report
        assert journal.parse_mark(found[2]) == mark
        assert journal.parse_gap(found[3]) == gap
        assert journal.parse_seal(found[4]) == seal
        assert [record.at_ns for record in found] == [10, 11, 12, 2, 13]
        assert reader.torn_bytes == 0 and reader.damaged_bytes == 0


@given(st.lists(st.binary(min_size=0, max_size=2000), max_size=20))
def test_any_payloads_survive_the_round_trip(payloads: list[bytes]) -> None:
    header = make_header()
    data = header.encode() + b"".join(
        journal.encode_record(header.crc_seed, RecordType.RTP, 7, i, p)
        for i, p in enumerate(payloads)
    )
    reader = journal.JournalReader(Path("memory"), data)
    assert [(r.at_ns, r.track, r.payload) for r in reader.records()] == [
        (i, 7, p) for i, p in enumerate(payloads)
    ]


def test_a_tail_torn_at_any_byte_of_the_last_records_keeps_everything_before(
    tmp_path: Path,
) -> None:
    payloads = packets(12)
    path, pieces = write_journal(tmp_path, payloads)
    whole = path.read_bytes()
    last_three = len(whole) - sum(map(len, pieces[-3:]))
    for cut in range(last_three, len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = read_payloads(path)
        complete = sum(
            1 for index in range(len(payloads)) if sum(map(len, pieces[: index + 3])) <= cut
        )
        assert kept == payloads[:complete], f"cut at {cut}"


def test_recovery_cuts_a_torn_tail_seals_and_is_idempotent(tmp_path: Path) -> None:
    payloads = packets(12)
    path, pieces = write_journal(tmp_path, payloads)
    path.write_bytes(path.read_bytes()[:-5])
    first = manifest.recover(tmp_path)
    after_first = path.read_bytes()
    second = manifest.recover(tmp_path)
    assert path.read_bytes() == after_first
    assert first == second
    assert after_first.startswith(b"".join(pieces[:-1]))
    assert read_payloads(path) == payloads[:-1]
    assert first.journals[0].sealed == SealReason.RECOVERED
    assert verify(tmp_path).is_intact


def test_a_long_book_is_hashed_side_by_side_and_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for who in "abc":
        small_journal(tmp_path, who, who=who * 32)
    hashed_by: list[int] = []
    digests = manifest.digests

    def watched(path: Path, blanks: Sequence[Stretch] = ()) -> tuple[str, str]:
        hashed_by.append(threading.get_ident())
        together.wait(5)
        return digests(path, blanks)

    monkeypatch.setattr(manifest, "digests", watched)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    together = threading.Barrier(1)
    one_by_one = manifest.recover(tmp_path)
    assert len(set(hashed_by)) == 1
    (tmp_path / manifest.FILE_NAME).unlink()
    monkeypatch.setattr(manifest, "_LONG_BOOK_BYTES", 0)
    together = threading.Barrier(3)  # passed only by three at once
    side_by_side = manifest.recover(tmp_path)
    assert side_by_side.journals == one_by_one.journals


def test_recovery_interrupted_at_any_byte_of_its_seal_ends_the_same(tmp_path: Path) -> None:
    path, _ = write_journal(tmp_path, packets(3))
    unsealed = path.read_bytes()
    manifest.recover(tmp_path)
    sealed = path.read_bytes()
    for cut in range(len(unsealed), len(sealed)):
        path.write_bytes(sealed[:cut])
        (tmp_path / manifest.FILE_NAME).unlink()
        manifest.recover(tmp_path)
        assert path.read_bytes() == sealed


def test_a_flipped_bit_costs_its_record_and_no_other(tmp_path: Path) -> None:
    payloads = packets(30, seed=2)
    path, pieces = write_journal(tmp_path, payloads)
    whole = path.read_bytes()
    start = len(pieces[0]) + len(pieces[1])
    for victim in range(0, len(payloads) - 1, 3):
        begin = start + sum(len(p) for p in pieces[2 : 2 + victim])
        damaged = bytearray(whole)
        damaged[begin + len(pieces[2 + victim]) // 2] ^= 0x10
        path.write_bytes(damaged)
        with journal.open_journal(path) as reader:
            kept = [r.payload for r in reader.records() if r.type is RecordType.RTP]
            assert kept == payloads[:victim] + payloads[victim + 1 :]
            assert reader.damage == [(begin, begin + len(pieces[2 + victim]))]


def test_recovery_never_cuts_valid_records_behind_damage(tmp_path: Path) -> None:
    payloads = packets(10)
    path, pieces = write_journal(tmp_path, payloads)
    damaged = bytearray(path.read_bytes())
    damaged[len(pieces[0]) + len(pieces[1]) + 1] ^= 0xFF  # the first packet's length
    path.write_bytes(damaged)
    book = manifest.recover(tmp_path)
    assert read_payloads(path) == payloads[1:]
    assert book.journals[0].damaged_bytes == len(pieces[2])


def test_every_single_flipped_bit_of_a_finished_recording_is_found(tmp_path: Path) -> None:
    path, _ = write_journal(tmp_path, packets(2))
    manifest.recover(tmp_path)
    good = path.read_bytes()
    for position in range(len(good)):
        bad = bytearray(good)
        bad[position] ^= 1 << position % 8
        path.write_bytes(bad)
        assert not verify(tmp_path).is_intact, f"byte {position}"
    path.write_bytes(good)
    assert verify(tmp_path).is_intact


def test_missing_foreign_and_shortened_journals_are_found(tmp_path: Path) -> None:
    path, _ = write_journal(tmp_path, packets(4))
    manifest.recover(tmp_path)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    assert {p.code for p in verify(tmp_path).problems} >= {"size", "sha256"}
    path.unlink()
    assert [p.code for p in verify(tmp_path).problems] == ["missing"]
    path.write_bytes(good)
    (tmp_path / journal.journal_name(ParticipantId("x"), 1, 0)).write_bytes(good)
    assert [p.code for p in verify(tmp_path).problems] == ["not_in_manifest"]


def test_a_journal_that_is_in_the_manifest_twice_is_told(tmp_path: Path) -> None:
    path, _ = write_journal(tmp_path, packets(4))
    manifest.recover(tmp_path)
    book = json.loads((tmp_path / manifest.FILE_NAME).read_bytes())
    book["journals"] *= 2
    (tmp_path / manifest.FILE_NAME).write_text(json.dumps(book), encoding="utf-8")
    found = verify(tmp_path)
    assert [(p.path, p.code) for p in found.problems] == [(path.name, "twice")]


def test_a_record_of_another_party_is_not_accepted(tmp_path: Path) -> None:
    mine, other = make_header(), make_header(participant_id=ParticipantId("q" * 32))
    data = mine.encode() + journal.encode_record(other.crc_seed, RecordType.RTP, 0, 1, b"foreign")
    assert list(journal.JournalReader(Path("memory"), data).records()) == []


def test_preallocated_zeros_read_as_the_end(tmp_path: Path) -> None:
    payloads = packets(3)
    path, _ = write_journal(tmp_path, payloads)
    with path.open("ab") as file:
        file.write(bytes(4096))
    manifest.recover(tmp_path)
    assert read_payloads(path) == payloads


@given(st.binary(max_size=400))
def test_arbitrary_bytes_never_crash_the_reader(noise: bytes) -> None:
    header = make_header().encode()
    reader = journal.JournalReader(Path("memory"), header + noise)
    read = sum(record.size_bytes for record in reader.records())
    assert len(header) + read + reader.damaged_bytes + reader.torn_bytes == reader.size_bytes, (
        "a byte was neither read nor told of"
    )
    with contextlib.suppress(JournalDamaged):
        journal.JournalReader(Path("memory"), noise)


@pytest.mark.parametrize("cut", [0, 5, 12, 40, -1])
def test_a_cut_header_is_refused_in_words(tmp_path: Path, cut: int) -> None:
    path = tmp_path / make_header().file_name
    path.write_bytes(make_header().encode()[:cut])
    with pytest.raises(JournalDamaged), journal.open_journal(path):
        pass
    book = manifest.recover(tmp_path)
    assert book.unreadable == (path.name,)


def test_a_newer_version_is_refused_by_number(tmp_path: Path) -> None:
    data = bytearray(make_header().encode())
    data[9] = 9
    with pytest.raises(JournalDamaged, match="version 9"):
        journal.parse_header(bytes(data))


@pytest.mark.parametrize("who", ["", "../x", "a b", "x" * 65, "é"])
def test_an_id_that_fits_no_file_name_is_refused(who: str) -> None:
    with pytest.raises(Malformed):
        journal.journal_name(ParticipantId(who), 1, 0)


def test_recovery_of_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(manifest.RecordingMissing):
        manifest.recover(tmp_path)
    with pytest.raises(manifest.RecordingMissing):
        manifest.recover(tmp_path / "nowhere")


def test_inspect_tells_what_is_there_before_and_after(tmp_path: Path) -> None:
    payloads = packets(5)
    path, _ = write_journal(tmp_path, payloads)
    before = inspection.inspect(tmp_path)
    assert before["sealed"] is None
    assert before["journals"][0]["tracks"][0]["packets"] == 5
    assert before["journals"][0]["last_ms"] == 80
    manifest.recover(tmp_path)
    text = inspection.inspect_text(tmp_path)
    assert "by recovery" in text and "5 packets" in text
    json.dumps(inspection.inspect(tmp_path))
    path.unlink()
