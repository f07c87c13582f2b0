"""The recording of a case as pages see it: how far it is, its files, its gaps, who spoke when.

Media owns the rows (media/model.py); this module reads them. A recording that failed is a state on
the case, never a missing case.
"""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload

from cases.model import Case
from cases.schemas import GapView, RecordingFileView, RecordingView, SpeechView
from core.errors import Conflict, NotFound
from media.model import Recording, RecordingFile
from signaling.model import Session


class NoRecording(NotFound):
    code = "no_recording"


class NothingToRetry(Conflict):
    code = "nothing_to_retry"


async def recording_view(tx: AsyncSession, session_id: str) -> RecordingView | None:
    """The session's recording, or None if nothing could be recorded."""
    row = await tx.scalar(
        select(Recording)
        .where(Recording.session_id == session_id)
        .options(selectinload(Recording.files))
    )
    if row is None:
        return None
    return RecordingView.model_validate(
        {
            "id": row.id,
            "state": row.state,
            "stage": row.stage,
            "progress_percent": row.progress_percent,
            "error": row.error,
            "duration_ms": row.duration_ms,
            "files": tuple(file_view(file) for file in row.files),
            "gaps": tuple(_gaps(row.timeline.get("gaps", ()))),
            "speech": tuple(_speech(row.timeline.get("speech", ()))),
        }
    )


def file_view(file: RecordingFile) -> RecordingFileView:
    return RecordingFileView.model_validate(
        {
            "id": file.id,
            "kind": file.kind,
            "participant_id": file.participant_id,
            "role": file.role,
            "label": file.label,
            "mime": file.mime,
            "size_bytes": file.size_bytes,
            "sha256": file.sha256,
            "duration_ms": file.duration_ms,
            "offset_ms": file.offset_ms,
            "width": file.width,
            "height": file.height,
            "has_audio": file.has_audio,
            "has_video": file.has_video,
            "url": f"/api/recording-files/{file.id}",
        }
    )


def _gaps(written: Iterable[dict[str, Any]]) -> Iterable[GapView]:
    # JSON of media.model.Recording.timeline; the views refuse another shape.
    return (GapView.model_validate(gap) for gap in written)


def _speech(written: Iterable[dict[str, Any]]) -> Iterable[SpeechView]:
    return (SpeechView.model_validate(span) for span in written)


async def states(tx: AsyncSession, session_ids: list[str]) -> dict[str, str]:
    """Recording states by session; sessions without a recording are absent."""
    rows = await tx.execute(
        select(Recording.session_id, Recording.state).where(Recording.session_id.in_(session_ids))
    )
    return {row[0]: row[1] for row in rows}


async def duration_ms(tx: AsyncSession, session: Session) -> int:
    """Length of the session's timeline: what was measured, or until then what the wall says."""
    measured: int | None = await tx.scalar(
        select(Recording.duration_ms).where(Recording.session_id == session.id)
    )
    if measured is not None:
        return measured
    ended_at = session.ended_at or session.started_at
    return max(0, (ended_at - session.started_at) // timedelta(milliseconds=1))


async def file_and_case(tx: AsyncSession, file_id: str) -> tuple[RecordingFile, str]:
    """A finished file and the id of the case it belongs to. Raises `NoRecording`."""
    row = (
        await tx.execute(
            select(RecordingFile, Case.id)
            .join(Recording, Recording.id == RecordingFile.recording_id)
            .join(Case, Case.session_id == Recording.session_id)
            .where(RecordingFile.id == file_id)
        )
    ).one_or_none()
    if row is None:
        raise NoRecording("There is no such file. Reload the recording.")
    return row[0], row[1]
