"""Devices at the door: WHIP for publishers and WHEP for screens, apart from HTTP's own matters.

A device has no page and no socket. One POST brings a Grant and an SDP offer and is answered at
once; what began so is a device session, named in `Location`, that PATCH can restart and DELETE
ends. It lives in this process, as its room does: after a restart the device begins again.
RFC 9725 (WHIP), draft-ietf-wish-whep (WHEP), RFC 6750 (bearer). Routes: signaling/routes.py.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

import structlog
from redis.exceptions import RedisError

from core import given_grants
from core.errors import Forbidden, Malformed, NotFound, Refused, TooLarge, Unavailable
from core.errors import Unauthenticated as Unknown
from core.grants import Grant, GrantRefused
from media.offers import ClientOffer, check_receiving, read_fragment, read_offer, tracks_for
from media.sdp import MAX_SDP_BYTES, SdpRefused
from media.tracks import TrackName
from signaling.host import Plug, RoomHost
from signaling.hub import Hub
from signaling.protocol import ParticipantRole, Track

log = structlog.get_logger(__name__)

SDP_TYPE: Final = "application/sdp"
FRAGMENT_TYPE: Final = "application/trickle-ice-sdpfrag"


class Door(StrEnum):
    """Which of the two protocols; also the first word of the path."""

    WHIP = "whip"
    WHEP = "whep"

    @property
    def role(self) -> ParticipantRole:
        return ParticipantRole.DEVICE if self is Door.WHIP else ParticipantRole.DISPLAY


class BearerMissing(Unknown):
    code = "grant_missing"
    headers: ClassVar = {"WWW-Authenticate": 'Bearer realm="reception"'}


class BearerRefused(GrantRefused):
    headers: ClassVar = {"WWW-Authenticate": 'Bearer realm="reception", error="invalid_token"'}


class OtherGrant(Forbidden):
    """A good Grant, but not for this."""

    code = "other_grant"


class WrongMediaType(Refused):
    code = "wrong_media_type"
    status = 415


class OfferRefused(Malformed):
    """`details["reason"]` is the machine's word, as in media/sdp.py."""

    code = "sdp_refused"


class NoSuchDeviceSession(NotFound):
    code = "no_such_device_session"


class IceSessionChanged(Refused):
    code = "ice_session_changed"
    status = 412


class IfMatchMissing(Refused):
    code = "if_match_missing"
    status = 428


@dataclass(frozen=True, slots=True)
class Begun:
    """What a 201 says."""

    session_id: str
    answer: str
    etag: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """What the 200 of an ICE restart says."""

    fragment: str
    etag: str


@dataclass(frozen=True, slots=True)
class _DeviceSession:
    door: Door
    room_id: str
    host: RoomHost
    plug: Plug
    bearer: bytes  # digest of the token that began it

    @property
    def etag(self) -> str:
        """Strong, and different for every ICE session (RFC 9725 §4.3.1)."""
        return f'"{self.host.ice_name(self.plug)}"'


class Devices:
    """The device sessions of one process. `hub` is asked each time: it exists only while started.

    Bounded by the seats of the rooms: a session that has lost its seat is forgotten at the latest
    when the next one begins.
    """

    def __init__(self, hub: Callable[[], Hub]) -> None:
        self._hub = hub
        self._sessions: dict[str, _DeviceSession] = {}

    async def begin(self, door: Door, room_id: str, bearer: str, body: bytes) -> Begun:
        """Seat the device and answer its offer (RFC 9725 §4.2).

        Raises what the routes translate: who it is, what it brought, whether the room is open.
        """
        self._forget_ended()
        grant = self._verified(door, room_id, bearer)
        # A full one takes ten milliseconds, for which no packet should wait.
        offer = await asyncio.to_thread(_offer, body)
        tracks = _tracks(door, offer, grant)
        await self._not_taken_back(grant)
        try:
            host = await self._hub().device_room(grant)
            plug = host.plug_in(grant, tracks, offer)
        except (RedisError, OSError, TimeoutError) as trouble:
            log.warning("no_device_can_come_in", reason=type(trouble).__name__)
            raise Unavailable("The server is busy. Try again.") from trouble
        session_id = secrets.token_urlsafe(16)
        session = _DeviceSession(door, room_id, host, plug, _digest(bearer))
        self._sessions[session_id] = session
        log.info("device_plugged_in", room_id=room_id, door=door.value,
                 participant_id=plug.participant_id, leg=plug.leg)  # fmt: skip
        return Begun(session_id, plug.answer, session.etag)

    def patch(
        self,
        door: Door,
        room_id: str,
        session_id: str,
        bearer: str,
        *,
        body: bytes,
        match: str | None,
    ) -> Restarted | None:
        """Trickled candidates change nothing (None): where a client is we learn from its checks
        alone (media/ice.py). New ICE names restart ICE. RFC 9725 §4.3.1 to §4.3.3.
        """
        session = self._session(door, room_id, session_id, bearer)
        if match is None:
            raise IfMatchMissing('Send If-Match with the last ETag, or "*" to restart ICE.')
        fragment = read_fragment(_text(body))
        if match.strip() == "*" and fragment.ufrag is not None:
            answer = session.host.restart_ice(session.plug, fragment.ufrag)
            return Restarted(answer, session.etag)
        if match.strip() != session.etag:
            raise IceSessionChanged("This is not the present ICE session. Restart ICE.")
        return None

    def end(self, door: Door, room_id: str, session_id: str, bearer: str) -> None:
        """The device gives up its seat. Whatever else was sent with it does not matter."""
        session = self._session(door, room_id, session_id, bearer)
        del self._sessions[session_id]
        session.host.unplug(session.plug)
        log.info("device_unplugged", room_id=room_id, participant_id=session.plug.participant_id)

    def _verified(self, door: Door, room_id: str, bearer: str) -> Grant:
        services = self._hub().services
        try:
            grant = services.grant_key.verify(bearer, now=services.clock.now())
        except GrantRefused as refused:
            raise BearerRefused(refused.message) from refused
        if grant.role != door.role:
            raise OtherGrant(f"This Grant is not for {door.value.upper()}. Have a new one made.")
        if grant.room_id != room_id:
            raise OtherGrant("This Grant is for another room.")
        return grant

    async def _not_taken_back(self, grant: Grant) -> None:
        async with self._hub().services.database.reading() as tx:
            if await given_grants.is_taken_back(tx, grant):
                raise BearerRefused("This permission was taken back. Have a new one made.")

    def _session(self, door: Door, room_id: str, session_id: str, bearer: str) -> _DeviceSession:
        self._forget_ended()
        session = self._sessions.get(session_id)
        if session is None or (session.door, session.room_id) != (door, room_id):
            raise NoSuchDeviceSession("There is no such session, or it has ended.")
        # The token that began it, even if it has expired since: a Grant bounds coming, not staying.
        if not hmac.compare_digest(session.bearer, _digest(bearer)):
            raise OtherGrant("This session was begun with another Grant.")
        return session

    def _forget_ended(self) -> None:
        self._sessions = {
            name: session
            for name, session in self._sessions.items()
            if session.host.is_plugged(session.plug)
        }


def bearer_of(authorization: str | None) -> str:
    """The token of an Authorization header. Raises `BearerMissing` (RFC 6750 §3)."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise BearerMissing("Send the Grant as a bearer token.")
    return token.strip()


def check_media_type(content_type: str | None, wanted: str) -> None:
    """Raise `WrongMediaType` unless the body is said to be `wanted` (RFC 9725 §4.2, §4.3.1)."""
    if (content_type or "").partition(";")[0].strip().lower() != wanted:
        raise WrongMediaType(f"Send {wanted}.")


def _offer(body: bytes) -> ClientOffer:
    if len(body) > MAX_SDP_BYTES:
        raise TooLarge("A session description is at most 32 KiB.", limit_bytes=MAX_SDP_BYTES)
    try:
        return read_offer(_text(body))
    except SdpRefused as refused:
        raise OfferRefused(refused.message, **refused.details) from refused


def _tracks(door: Door, offer: ClientOffer, grant: Grant) -> tuple[Track, ...]:
    """What the device publishes: nothing for a screen."""
    try:
        if door is Door.WHEP:
            check_receiving(offer)
            return ()
        allowed = [TrackName(name) for name in grant.publish]
        return tuple(Track(name.value) for name in tracks_for(offer, allowed))
    except SdpRefused as refused:
        raise OfferRefused(refused.message, **refused.details) from refused


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise SdpRefused("not_sdp", "This is not text.") from error


def _digest(bearer: str) -> bytes:
    return hashlib.sha256(bearer.encode()).digest()
