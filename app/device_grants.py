"""`reception grant`: permission for a device from the server's own command line.

For the technician who sets up a hall camera or a screen; at the desk the same is
POST /api/appointments/{id}/device-grants. Whoever may run this reads the secret anyway.
"""

from datetime import datetime

import imageio_ffmpeg
from sqlalchemy.ext.asyncio import AsyncSession

from core.db import Database
from core.grants import Grant, GrantKey
from core.settings import Settings
from scheduling import admission
from scheduling.schemas import DeviceGrantView, DeviceKind
from scheduling.views import find_by_number

ACTOR = "operator:cli"


async def device_grant(
    settings: Settings, typed: str, kind: DeviceKind, *, first: str, now: datetime
) -> DeviceGrantView:
    """A Grant for `kind` in the talk with this number, audited. Raises as `admit_device`, and
    `NoSuchAppointment`."""
    number = admission.number_typed(typed, settings.secret_bytes)
    database = Database(settings.database)

    async def work(tx: AsyncSession) -> Grant:
        appointment = await find_by_number(tx, number)
        if appointment is None:
            raise admission.no_such_appointment()
        return await admission.admit_device(tx, appointment, kind, by=ACTOR, now=now, first=first)

    try:
        grant = await database.run(work)
    finally:
        await database.close()
    return admission.device_grant_view(
        grant, kind, key=GrantKey(settings.secret_bytes), base_url=settings.base_url
    )


def encoder_command(view: DeviceGrantView) -> str:
    """The FFmpeg command that publishes a Linux camera and its microphone under this Grant."""
    sound = "microphone" in view.publishes
    return " ".join(
        [
            imageio_ffmpeg.get_ffmpeg_exe(),
            "-f v4l2 -i /dev/video0",
            *(["-f alsa -i default"] if sound else []),
            "-pix_fmt yuv420p -c:v libx264 -profile:v baseline -preset veryfast -tune zerolatency",
            "-bf 0 -g 50 -b:v 1M -maxrate 1M -bufsize 500k",
            *(["-c:a libopus -ar 48000 -ac 2 -b:a 32k"] if sound else []),
            f"-f whip -whip_flags dtls_active -authorization {view.grant} {view.url}",
        ]
    )
