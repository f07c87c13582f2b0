"""What a disk does not give of a file costs what stood there, and nothing else."""

import errno
import hashlib
import json
import mmap
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import cli
from media import inspection, journal, manifest, mux, scan, scrub, unread
from media.journal import JournalDamaged, JournalUnreadable
from media.verification import RESTORED, verify
from tests.support.journals import T0_NS, small_journal
from tests.support.media_material import Speaker, flash_and_beep, record

PAGE = mmap.PAGESIZE
Sicken = Callable[[Path, Sequence[int]], list[int]]


@pytest.fixture
def sicken(monkeypatch: pytest.MonkeyPatch) -> Sicken:
    """Makes pages of a file unreadable, as a disk does: what stands before them in a read is given.
    Returns the list to which every refusal's offset will be added."""
    real = os.preadv
    gone: dict[int, set[int]] = {}
    refusals: list[int] = []

    def preadv(fd: int, buffers: Sequence[memoryview], offset: int) -> int:
        bad = gone.get(os.fstat(fd).st_ino, set())
        first = min((page for page in bad if (page + 1) * PAGE > offset), default=None)
        size = len(buffers[0])
        if first is not None and first * PAGE < offset + size:
            if first * PAGE <= offset:
                refusals.append(offset)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            size = first * PAGE - offset
        return real(fd, [buffers[0][:size]], offset)

    def sicken(path: Path, pages: Sequence[int]) -> list[int]:
        gone[path.stat().st_ino] = set(pages)
        return refusals

    monkeypatch.setattr(os, "preadv", preadv)
    return sicken


def file_of(path: Path, pages: int, tail: int = 0) -> Path:
    path.write_bytes(b"".join(bytes([1 + n % 255]) * PAGE for n in range(pages)) + b"t" * tail)
    return path


def refused(path: Path) -> unread.Refused:
    with path.open("rb") as file:
        return unread.refused(file.fileno())


def test_a_disk_that_gives_everything_refuses_nothing(tmp_path: Path) -> None:
    assert refused(file_of(tmp_path / "f", 200, 17)) == unread.Refused((), "")


def test_single_pages_are_named_exactly(tmp_path: Path, sicken: Sicken) -> None:
    path = file_of(tmp_path / "f", 200, 17)
    sicken(path, [0, 5, 130, 200])
    found = refused(path)
    assert found.why == "Input/output error"
    assert found.stretches == (
        (0, PAGE), (5 * PAGE, 6 * PAGE), (130 * PAGE, 131 * PAGE), (200 * PAGE, 200 * PAGE + 17),
    )  # fmt: skip


def test_a_long_stretch_is_left_in_doubling_steps(tmp_path: Path, sicken: Sicken) -> None:
    path = file_of(tmp_path / "f", 1000)
    refusals = sicken(path, range(300, 420))
    [(start, end)] = refused(path).stretches
    assert start == 300 * PAGE and 420 * PAGE <= end <= 540 * PAGE
    assert len(refusals) < 12


def test_a_dying_disk_is_not_asked_for_ever(tmp_path: Path, sicken: Sicken) -> None:
    path = file_of(tmp_path / "f", 600)
    refusals = sicken(path, range(0, 600, 2))
    found = refused(path)
    assert len(refusals) == unread.MOST_REFUSALS
    assert found.stretches[0] == (0, PAGE) and found.stretches[-1][1] == 600 * PAGE


def test_zeros_stand_in_a_mapping_where_nothing_was_given(tmp_path: Path) -> None:
    path = file_of(tmp_path / "f", 5, 100)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        unread.blank(data, [(PAGE, 2 * PAGE), (5 * PAGE, 5 * PAGE + 100)])
        assert data[:PAGE] == b"\1" * PAGE and data[PAGE : 2 * PAGE] == bytes(PAGE)
        assert data[2 * PAGE : 3 * PAGE] == b"\3" * PAGE and data[5 * PAGE :] == bytes(100)
    assert b"\2" in path.read_bytes() and path.read_bytes().endswith(b"t"), "the file is as it was"


@pytest.mark.parametrize("chunk_bytes", [7, 1000, 100_000])
def test_digests_have_zeros_where_nothing_was_given(tmp_path: Path, chunk_bytes: int) -> None:
    path = file_of(tmp_path / "f", 4, 100)
    blanks = ((0, PAGE), (2 * PAGE, 3 * PAGE), (4 * PAGE, 4 * PAGE + 100))
    expected = bytearray(path.read_bytes())
    for start, end in blanks:
        expected[start:end] = bytes(end - start)
    with path.open("rb", buffering=0) as file:
        chunk = memoryview(bytearray(chunk_bytes))
        assert b"".join(map(bytes, unread.pieces(file, blanks, chunk))) == expected
    assert manifest.digests(path, blanks)[0] == hashlib.sha256(expected).hexdigest()


# --- a journal with a page that is gone ----------------------------------------------------------


def test_records_around_the_page_are_read_and_its_time_is_known(
    tmp_path: Path, sicken: Sicken
) -> None:
    path = small_journal(tmp_path, "s", packets=400)
    with journal.open_journal(path) as reader:
        whole = {at_ns for _, _, at_ns, _, _ in scan.spans(reader)}
    sicken(path, [1])
    with pytest.raises(JournalUnreadable), journal.open_journal(path):
        pytest.fail("nobody asked to leave anything out")
    with journal.open_journal(path, leaving_out=True) as reader:
        held = [at_ns for _, _, at_ns, _, _ in scan.spans(reader)]
        assert reader.unread == ((PAGE, 2 * PAGE),)
        assert PAGE <= reader.damaged_bytes < PAGE + 200
        [(before_ns, after_ns)] = scan.unread_times(reader)
    missing = whole - set(held)
    assert before_ns is not None and after_ns is not None
    assert missing and all(before_ns < at_ns < after_ns for at_ns in missing)
    assert "the disk does not give bytes 4096–8192" in inspection.inspect_text(tmp_path)


def test_an_unsealed_journal_behind_a_bad_page_is_neither_cut_nor_sealed(
    tmp_path: Path, sicken: Sicken
) -> None:
    path = small_journal(tmp_path, "s", packets=400)
    with path.open("ab") as file:
        file.write(b"torn")
    before = path.read_bytes()
    pages = len(before) // PAGE
    sicken(path, [pages])  # the last one: what is torn there, and what is not, nobody can tell
    with pytest.raises(JournalUnreadable):
        manifest.recover(tmp_path)
    assert not (tmp_path / manifest.FILE_NAME).exists()
    book = manifest.recover(tmp_path, leaving_out=True)
    assert path.read_bytes() == before
    [entry] = book.journals
    assert entry.sealed == "" and entry.blanks == ((pages * PAGE, len(before)),)
    assert entry.unread[0].from_ms is not None and entry.unread[0].to_ms is None
    assert manifest.read_manifest(tmp_path) == book == manifest.recover(tmp_path)
    found = verify(tmp_path)
    assert [problem.code for problem in found.problems] == ["unread"] and found.is_intact


def test_what_is_there_again_is_said_to_be_proven_only_where_a_seal_proves_it(
    tmp_path: Path, sicken: Sicken
) -> None:
    record(tmp_path / "sealed", [Speaker("a" * 32, flash_and_beep(2.0))])
    (tmp_path / "sealed" / manifest.FILE_NAME).unlink()
    (tmp_path / "open").mkdir()
    small_journal(tmp_path / "open", "s", packets=400)
    for name, code in (("sealed", RESTORED), ("open", "unread")):
        directory = tmp_path / name
        [path] = journal.journals_in(directory)
        whole = path.read_bytes()
        sicken(path, [1])
        manifest.recover(directory, leaving_out=True)
        sicken(path, [])
        found = verify(directory)
        assert [problem.code for problem in found.problems] == [code] and found.is_intact
        # Whatever it was, it was not this.
        path.write_bytes(whole[:PAGE] + bytes(PAGE) + whole[2 * PAGE :])
        found = verify(directory)
        assert [problem.code for problem in found.problems] == ["unread"], name
        # And all the rest is vouched for as ever.
        path.write_bytes(whole[:-9] + b"\xff" + whole[-8:])
        assert not verify(directory).is_intact
        path.write_bytes(whole[:-9])
        assert [p.code for p in verify(directory).problems] == ["size"]


def test_a_page_that_goes_after_the_book_was_closed_is_the_disk_s_fault(
    tmp_path: Path, sicken: Sicken
) -> None:
    path = small_journal(tmp_path, "s", packets=400)
    manifest.recover(tmp_path)
    sicken(path, [1])
    found = verify(tmp_path)
    assert [problem.code for problem in found.changes] == ["disk"] and not found.is_intact


def test_the_nightly_look_leaves_alone_what_the_book_leaves_out(
    tmp_path: Path, sicken: Sicken
) -> None:
    path = small_journal(tmp_path, "s", packets=400)
    sicken(path, [1])
    manifest.recover(tmp_path, leaving_out=True)
    wanted, pace = scrub.Wanted(str(tmp_path)), scrub.Pace(1 << 30)
    assert scrub.look(wanted, pace).problems == ()
    with path.open("r+b") as file:
        file.seek(-3, os.SEEK_END)
        file.write(b"\0\0\0")
    assert [problem.code for problem in scrub.look(wanted, pace).problems] == ["sha256"]


def test_a_journal_whose_beginning_is_gone_costs_only_itself_and_the_gap_says_so(
    tmp_path: Path, sicken: Sicken
) -> None:
    clip = flash_and_beep(2.0)
    who, other = "a" * 32, "b" * 32
    legs = [Speaker(who, clip, leg=leg, starts_ms=(leg - 1) * 2500) for leg in (1, 2, 3)]
    record(tmp_path / "rec", [*legs, Speaker(other, clip)])
    (tmp_path / "rec" / manifest.FILE_NAME).unlink()
    path = tmp_path / "rec" / f"{who}.l0002.s0000.rrj"
    sicken(path, [0])
    with pytest.raises(JournalUnreadable):
        mux.mux(tmp_path / "rec", tmp_path / "out", with_speech=False)
    book = manifest.recover(tmp_path / "rec", leaving_out=True)
    assert book.unreadable == (path.name,) and len(book.journals) == 3
    made = mux.mux(tmp_path / "rec", tmp_path / "out", with_speech=False, leaving_out=True)
    assert mux.read_result(tmp_path / "out") == made
    assert [path.name in words for words in made.unread] == [True]
    gaps = {file.participant_id: file.gaps for file in made.files}
    assert gaps[other] == ()
    assert {(gap.track, gap.cause) for gap in gaps[who]} == {
        ("camera", "disk"), ("microphone", "disk"),
    }  # fmt: skip
    assert all(1900 < gap.start_ms < 2600 and gap.end_ms > 4900 for gap in gaps[who])


def test_a_page_too_short_to_be_heard_missing_is_named_as_a_gap(
    tmp_path: Path, sicken: Sicken
) -> None:
    record(tmp_path / "rec", [Speaker("a" * 32, flash_and_beep(2.0), padding=True)])
    [path] = journal.journals_in(tmp_path / "rec")
    sicken(path, [1])
    made = mux.mux(tmp_path / "rec", tmp_path / "out", with_speech=False, leaving_out=True)
    [file] = made.files
    assert {gap.track for gap in file.gaps} == {"camera", "microphone"}
    assert {gap.cause for gap in file.gaps} == {"disk"}


def test_the_commands_of_the_console_say_the_same(
    tmp_path: Path, sicken: Sicken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECEPTION_VAR_DIR", str(tmp_path / "var"))
    (tmp_path / "var").mkdir()
    directory = tmp_path / "rec"
    record(directory, [Speaker("a" * 32, flash_and_beep(2.0))])
    (directory / manifest.FILE_NAME).unlink()
    [path] = journal.journals_in(directory)
    sicken(path, [1])
    where = f"bytes {PAGE}–{2 * PAGE}"

    def said(*words: str) -> tuple[int, str]:
        found = CliRunner().invoke(cli, ["recording", *words])
        return found.exit_code, found.output

    code, words = said("recover", str(directory))
    assert code == 1 and f"{path.name} back: Input/output error" in words
    assert not (directory / manifest.FILE_NAME).exists()
    code, words = said("recover", str(directory), "--leaving-out")
    assert code == 0 and f"{path.name}: left out {where}" in words
    for command in ("inspect", "verify"):
        code, words = said(command, str(directory))
        assert code == (command == "verify") and where in words
    code, words = said("recompose", str(directory), str(tmp_path / "out"))
    assert code == 0 and f"left out: {path.name}: {where}" in words
    sicken(path, [])
    code, words = said("verify", str(directory))
    assert code == 0 and "there again now, as first sealed" in words
    assert "left out" not in said("recompose", str(directory), str(tmp_path / "out"))[1]


def test_a_copy_with_zeros_in_its_place_is_not_taken_for_the_whole(
    tmp_path: Path, sicken: Sicken
) -> None:
    record(tmp_path / "rec", [Speaker("a" * 32, flash_and_beep(2.0))])
    (tmp_path / "rec" / manifest.FILE_NAME).unlink()
    [path] = journal.journals_in(tmp_path / "rec")
    whole = path.read_bytes()
    sicken(path, [1])
    manifest.recover(tmp_path / "rec", leaving_out=True)
    sicken(path, [])
    for content, missing in (
        (whole[:PAGE] + bytes(PAGE) + whole[2 * PAGE :], [f"bytes {PAGE}–{2 * PAGE}"]),
        (whole, []),
    ):
        path.write_bytes(content)
        made = mux.mux(tmp_path / "rec", tmp_path / "out", with_speech=False, leaving_out=True)
        assert len(made.unread) == len(missing) and all(
            words in said for words, said in zip(missing, made.unread, strict=True)
        )
        assert {gap.cause for gap in made.files[0].gaps} == {"disk" for _ in missing}
        [problem] = verify(tmp_path / "rec").problems
        assert problem.code == ("unread" if missing else RESTORED)


@pytest.mark.parametrize(
    "stretch",
    [
        {"start": 4096, "end": 4096},
        {"start": -1, "end": 4096},
        {"start": 0, "end": 1 << 40},
        {"start": "0", "end": 4096},
        {"start": 0, "end": 4096, "from_ms": "x"},
        4096,
    ],
)
def test_a_manifest_with_stretches_that_are_none_is_not_understood(
    tmp_path: Path, stretch: object
) -> None:
    small_journal(tmp_path, "s", packets=400)
    manifest.recover(tmp_path)
    book = json.loads((tmp_path / manifest.FILE_NAME).read_bytes())
    good = {"start": 0, "end": 4096, "from_ms": None, "to_ms": T0_NS}
    book["journals"][0]["unread"] = [good | stretch if isinstance(stretch, dict) else stretch]
    with pytest.raises(JournalDamaged):
        manifest.parse_manifest(json.dumps(book).encode())
    book["journals"][0]["unread"] = [good, good | {"start": 4096, "end": 4097}]
    parsed = manifest.parse_manifest(json.dumps(book).encode())
    assert parsed.journals[0].blanks == ((0, 4096), (4096, 4097))
    del book["journals"][0]["unread"]  # as manifests of earlier days are
    older = manifest.parse_manifest(json.dumps(book).encode())
    assert older == replace(parsed, journals=(replace(parsed.journals[0], unread=()),))
