"""A quick walk over a journal, for those who read millions of records: index and book.

The same records as `JournalReader.records`, as plain tuples that point into the file. As soon as
one does not hold, the reader's own careful walk takes over, so damage is found, skipped and counted
in one place only.
"""

import contextlib
import struct
from collections.abc import Iterable, Iterator
from typing import Final

import google_crc32c

from media import journal, reel
from media.journal import JournalDamaged, JournalReader, RecordType, Seal
from media.unread import Stretch

HEAD: Final = struct.Struct(">HBBQ")
"""Payload length, type, track, monotonic time in ns: what stands before every payload."""
_CRC: Final = struct.Struct(">I")
_HIGHEST_TYPE: Final = int(max(RecordType))


def spans(reader: JournalReader) -> Iterator[tuple[int, int, int, int, int]]:
    """`(type, track, at_ns, payload offset, payload length)` of every valid record in file order.

    When the walk is through, the reader's `damage` and `valid_end` say what it met.
    """
    # Locals: this loop sees every packet of a recording, twice.
    data, seed, size = reader.data, reader.header.crc_seed, reader.size_bytes
    head, head_bytes = HEAD.unpack_from, HEAD.size
    crc, crc_bytes, checksum = _CRC.unpack_from, _CRC.size, google_crc32c.extend
    offset = reader.start
    while offset < size:
        start = offset + head_bytes
        if start + crc_bytes > size:
            break
        length, kind, track, at_ns = head(data, offset)
        end = start + length
        if not 1 <= kind <= _HIGHEST_TYPE or end + crc_bytes > size:
            break
        if checksum(seed, data[offset:end]) != crc(data, end)[0]:
            break
        yield kind, track, at_ns, start, length
        offset = end + crc_bytes
    else:
        reader.damage, reader.valid_end = [], offset
        return
    for record in reader.records():
        if record.offset >= offset:
            begin = record.offset + head_bytes
            yield int(record.type), record.track, record.at_ns, begin, len(record.payload)


def survey(reader: JournalReader) -> tuple[int, int | None, int | None]:
    """How many valid records a journal holds, and when the first and the last of what happened in
    it did, on its own clock in ns: media and marks; a description or a seal sets no time."""
    if reel.built is not None:
        _, start = journal.parse_header(reader.data)
        end, *found = reel.built.survey(reader.data, start, reader.header.crc_seed)
        if end == reader.size_bytes:
            reader.damage, reader.valid_end = [], end
            return found[0], found[1], found[2]
    records, first_ns, last_ns = 0, None, None
    for kind, _, at_ns, _, _ in spans(reader):
        records += 1
        if kind in _UNTIMED:
            continue
        # Of several threads' records one may stand a little before an earlier one.
        first_ns = at_ns if first_ns is None or at_ns < first_ns else first_ns
        last_ns = at_ns if last_ns is None or at_ns > last_ns else last_ns
    return records, first_ns, last_ns


_UNTIMED: Final = (int(RecordType.TRACK), int(RecordType.SEAL))


def unread_times(reader: JournalReader) -> list[tuple[int | None, int | None]]:
    """Of each stretch that the disk did not give: the times of the valid records before and after
    it, on the journal's own clock in ns. None where there is no such record."""
    times: list[tuple[int | None, int | None]] = []
    waiting = list(reader.unread)
    before: int | None = None
    for _, _, at_ns, body, _ in spans(reader) if waiting else ():
        while waiting and body > waiting[0][0]:
            waiting.pop(0)
            times.append((before, at_ns))
        before = at_ns if before is None else max(before, at_ns)
    return times + [(before, None)] * len(waiting)


def note_still_unread(reader: JournalReader, named: Iterable[Stretch]) -> None:
    """Add to `reader.unread` what the book names as unread and what holds no valid record now
    either: a copy that was put in place of the journal may have zeros there."""
    for _ in spans(reader):
        pass
    holes = [*reader.damage, (reader.valid_end, reader.size_bytes)]
    still = {
        (start, end)
        for start, end in named
        if any(start < hole_end and end > hole_start for hole_start, hole_end in holes)
    }
    reader.unread = tuple(sorted({*reader.unread, *still}))


def final_seal(reader: JournalReader) -> Seal | None:
    """The seal that the file ends with, if it does: then nothing is torn, however long it is.

    Looks at the file's last bytes alone.
    """
    data, size = reader.data, reader.size_bytes
    at, last = max(0, size - _LONGEST_SEAL_BYTES) + 1, size - HEAD.size - _CRC.size + 3
    while (at := data.find(_SEAL, at + 1, last)) >= 0:
        offset = at - 2
        length, _, track, at_ns = HEAD.unpack_from(data, offset)
        end = offset + HEAD.size + length
        if end + _CRC.size != size:
            continue
        if google_crc32c.extend(reader.header.crc_seed, data[offset:end]) != _CRC.unpack_from(
            data, end
        )[0]:  # fmt: skip
            continue
        payload = data[offset + HEAD.size : end]
        with contextlib.suppress(JournalDamaged):
            return journal.parse_seal(
                journal.Record(RecordType.SEAL, track, at_ns, payload, offset)
            )
    return None


_LONGEST_SEAL_BYTES: Final = 512
_SEAL: Final = bytes([RecordType.SEAL])
