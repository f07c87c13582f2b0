"""The quick walk over a journal against the careful one."""

import random
from pathlib import Path

import pytest

from media import journal, scan
from media.journal import JournalReader, RecordType
from tests.support.media_material import Speaker, flash_and_beep, record


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    directory = tmp_path_factory.mktemp("scan") / "rec"
    record(directory, [Speaker("a" * 32, flash_and_beep(2.0))])
    return journal.journals_in(directory)[0].read_bytes()


def walks(data: bytes) -> tuple[list[tuple[int, int, int, int, bytes]], JournalReader]:
    """What the quick walk finds; asserts that the careful one finds the same."""
    quick, careful = JournalReader(Path("q"), data), JournalReader(Path("c"), data)
    found = [
        (kind, track, at_ns, start, data[start : start + length])
        for kind, track, at_ns, start, length in scan.spans(quick)
    ]
    assert found == [
        (int(r.type), r.track, r.at_ns, r.offset + scan.HEAD.size, r.payload)
        for r in careful.records()
    ]
    assert (quick.damage, quick.valid_end) == (careful.damage, careful.valid_end)
    return found, quick


def test_an_undamaged_journal_is_walked_to_its_end(written: bytes) -> None:
    found, reader = walks(written)
    assert len(found) > 100 and not reader.damaged_bytes and not reader.torn_bytes


def test_damage_anywhere_costs_the_same_records_as_in_the_careful_walk(written: bytes) -> None:
    dice = random.Random(7)
    whole = len(walks(written)[0])
    for _ in range(12):
        data = bytearray(written)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data) // 20, len(data))] ^= 1 << dice.randrange(8)
        assert len(walks(bytes(data))[0]) < whole


def test_a_torn_tail_and_preallocated_space_end_the_walk(written: bytes) -> None:
    for data in (written[:-7], written + bytes(300), written[: len(written) // 2]):
        _, reader = walks(data)
        assert reader.torn_bytes > 0


def test_the_seal_is_found_from_the_end_alone(written: bytes) -> None:
    seal = scan.final_seal(JournalReader(Path("a"), written))
    assert seal is not None and seal.reason == "ended"
    for data in (written[:-1], written + b"\0", written[:-9] + b"\xff" + written[-8:]):
        assert scan.final_seal(JournalReader(Path("a"), data)) is None
    assert max(RecordType) == RecordType.SEAL  # `spans` takes the highest type as its bound
