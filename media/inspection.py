"""What is in a recording, for a person at a console: live, torn and finished ones alike.

Nothing here judges: whether it is still what was closed is `media/manifest.py`'s `verify`.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from media import journal, manifest
from media.journal import (
    JournalDamaged,
    JournalReader,
    JournalUnreadable,
    RecordType,
    Seal,
    TrackRecord,
)


def inspect(directory: Path) -> dict[str, Any]:
    """What is in the recording, as JSON-ready values; works on live, torn and finished ones."""
    book = manifest.read_manifest(directory)
    described = []
    for path in journal.journals_in(directory):
        try:
            with journal.open_journal(path, leaving_out=True) as reader:
                described.append(_describe(path, reader))
        except (JournalDamaged, JournalUnreadable) as problem:
            described.append({"path": path.name, "error": problem.message})
    return {
        "directory": str(directory),
        "sealed": None if book is None else {"at": book.sealed_at, "by": book.sealed_by},
        "session_id": None if book is None else book.session_id,
        "duration_ms": None if book is None else book.duration_ms,
        "journals": described,
    }


def inspect_text(directory: Path) -> str:
    """`inspect` for a person."""
    found = inspect(directory)
    sealed = found["sealed"]
    lines = [
        f"recording {found['directory']}",
        f"  sealed {sealed['at']} by {sealed['by']}" if sealed else "  not sealed",
    ]
    for item in found["journals"]:
        if "error" in item:
            lines.append(f"  {item['path']}: {item['error']}")
            continue
        lines.append(
            f"  {item['path']}: {item['role']} leg {item['leg']}, {item['bytes']} bytes, "
            f"{item['first_ms']}–{item['last_ms']} ms, {item['sealed'] or 'open'}, "
            f"damaged {item['damaged_bytes']}, torn {item['torn_bytes']}"
        )
        lines += [f"    the disk does not give {words}" for words in item["unread"]]
        for track in item["tracks"]:
            lines.append(
                f"    {track['index']:3d} {track['name']} {track['mime']}: "
                f"{track['packets']} packets, {track['bytes']} bytes"
            )
        for mark in item["marks"]:
            lines.append(f"    {mark['at_ms']:8d} ms {mark['kind']} {mark['detail']}".rstrip())
    return "\n".join(lines)


def _describe(path: Path, reader: JournalReader) -> dict[str, Any]:
    walk = _walk(reader)
    return {
        "path": path.name,
        "participant_id": reader.header.participant_id,
        "leg": reader.header.leg,
        "segment": reader.header.segment,
        "role": reader.header.role,
        "label": reader.header.label,
        "bytes": reader.size_bytes,
        "records": walk.records,
        "first_ms": walk.first_ms,
        "last_ms": walk.last_ms,
        "sealed": None if walk.seal is None else walk.seal.reason.value,
        "damaged_bytes": reader.damaged_bytes,
        "torn_bytes": reader.torn_bytes,
        "unread": [found.words for found in manifest.unread_in(reader)],
        "tracks": [
            {
                "index": track.index,
                "name": track.name.value,
                "mime": track.codec.mime,
                "ssrc": track.ssrc,
                "packets": walk.packets.get(track.index, 0),
                "bytes": walk.bytes.get(track.index, 0),
            }
            for track in walk.tracks
        ],
        "marks": walk.marks,
    }


@dataclass(slots=True)
class _Walk:
    records: int
    first_ms: int | None
    last_ms: int | None
    seal: Seal | None
    tracks: list[TrackRecord]
    packets: dict[int, int]
    bytes: dict[int, int]
    marks: list[dict[str, Any]]


def _walk(reader: JournalReader) -> _Walk:
    """One pass over a journal. Media and marks set the first and last times; a seal does not."""
    walk = _Walk(0, None, None, None, [], {}, {}, [])
    t0 = reader.header.t0_mono_ns
    for record in reader.records():
        walk.records += 1
        at_ms = (record.at_ns - t0) // 1_000_000
        walk.seal = None
        if record.type is RecordType.SEAL:
            with contextlib.suppress(JournalDamaged):
                walk.seal = journal.parse_seal(record)
            continue
        if record.type is RecordType.TRACK:
            with contextlib.suppress(JournalDamaged):
                walk.tracks.append(journal.parse_track(record))
            continue
        walk.first_ms = at_ms if walk.first_ms is None else min(walk.first_ms, at_ms)
        walk.last_ms = at_ms if walk.last_ms is None else max(walk.last_ms, at_ms)
        if record.type is RecordType.RTP:
            walk.packets[record.track] = walk.packets.get(record.track, 0) + 1
            walk.bytes[record.track] = walk.bytes.get(record.track, 0) + len(record.payload)
        elif record.type is RecordType.MARK:
            with contextlib.suppress(JournalDamaged):
                mark = journal.parse_mark(record)
                walk.marks.append({"at_ms": at_ms, "kind": mark.kind.value, "detail": mark.detail})
        elif record.type is RecordType.GAP:
            with contextlib.suppress(JournalDamaged):
                gap = journal.parse_gap(record)
                words = f"{gap.packets} packets ({gap.cause})"
                walk.marks.append({"at_ms": at_ms, "kind": "lost", "detail": words})
    return walk
