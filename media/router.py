"""The hot loop: one decrypted packet in, one rewritten and encrypted packet out per receiver.

    socket ─▶ unprotect ─▶ number check ─▶ gate ─▶ cache, journal ─▶ rewrite ─▶ protect ─▶ socket

Everything happens in the call that read the datagram: no queue, no task, no copy beyond the one
that cache and journal share, so a packet leaves microseconds after it came. The rules:

* Encoded media is never opened. A packet keeps payload, marker, payload type and extensions; its
  sequence number, timestamp and SSRC are rewritten, so that a publication is one unbroken stream
  for its receivers whatever its sender's transport went through.
* The gate (T7): nothing is forwarded or recorded unless the publication `is_open`.
* Under one SRTP key a sequence number always means the same bytes. Repairs of video go out as RTX
  under their own numbers; audio is repeated byte for byte.

Where it could be built, `lane` does this in C, on the same tables, for packets that need nothing
special; what it leaves comes here, and this file is what it is measured by.

Slow paths (a new SSRC, a hole, a repair, a codec change) are methods of their own; only `receive`
and `route` run for every packet.
"""

import struct
from typing import Final

from media.events import SpeakingChanged, TrackStarted
from media.fastlane import open_lane
from media.feedback import Feedback, is_past
from media.outlets import in_our_numbers, in_their_numbers, is_below_floor
from media.rtp import HEADER, abs_send_time, find_extension, restore_rtx
from media.sdp import ABS_SEND_TIME_EXTENSION, AUDIO_LEVEL_EXTENSION, CODECS, MID_EXTENSION
from media.sdp import PRIMARY_OF as PRIMARY_OF_RTX
from media.socket import SEND_SLOTS, Outbox
from media.srtp import PacketBuffer, protect, unprotect
from media.tables import Leg, Publication, Source

# Sequence, timestamp and SSRC are neighbours in the header: one call rewrites all three.
REWRITE: Final = struct.Struct("!HII")
REWRITE_AT: Final = 2

# A client sends at most a handful of streams; an SSRC storm ends here (drop rule: newest refused).
MAX_SOURCES_PER_LEG: Final = 16
# A jump this long is a new beginning, not a loss worth asking for packet by packet.
MAX_HOLES: Final = 256
# What is missing for so long was lost in a silence: the sender's, the line's, or ours. A picture of
# one frame a second that loses one is none.
SILENCE_S: Final = 3

# Speech: audio level is -dBov, 0 loudest, 127 silence (RFC 6464). A breath is quieter than 45;
# five loud packets are 100 ms; a pause shorter than 700 ms belongs to the sentence.
LOUD_LEVEL: Final = 45
LOUD_PACKETS: Final = 5
SPEECH_HANGOVER_NS: Final = 700_000_000


class Router:
    """Owns the hot loop. Packets lie where the kernel put them and where it will take them from."""

    def __init__(self, outbox: Outbox, feedback: Feedback) -> None:
        self._outbox = outbox
        # The common case of this loop in C; None: all of it runs here.
        self.lane = open_lane(
            self,
            outbox,
            audio_level_extension=AUDIO_LEVEL_EXTENSION,
            loud_level=LOUD_LEVEL,
            loud_packets=LOUD_PACKETS,
            speech_hangover_ns=SPEECH_HANGOVER_NS,
        )
        self._feedback = feedback
        self.unprotectable = 0  # libsrtp refused to encrypt: a key worn out, or a bug of ours
        self.unroutable = 0  # authentic, but of no section that was negotiated

    # -- The hot loop ------------------------------------------------------------------------

    def receive(self, leg: Leg, buffer: PacketBuffer, arrival_ns: int) -> None:
        """One SRTP packet from `leg` lies in `buffer`."""
        if unprotect(leg.rx, buffer.cdata, buffer.length):  # forged, damaged, or replayed
            leg.rejected += 1
            return
        # The one copy of the packet: the cache and the journal share it.
        packet = buffer.view[: buffer.length[0]].tobytes()
        leg.last_packet_ns = arrival_ns
        leg.packets_in += 1
        leg.bytes_in += len(packet)
        first, second, seq, timestamp, ssrc = HEADER.unpack_from(packet)
        source = leg.sources.get(ssrc)
        if source is None:
            if ssrc in leg.repairs or ssrc in leg.declared_repairs:
                self._repair(leg, ssrc, packet, arrival_ns)
                return
            source = self._adopt(leg, ssrc, packet)
            if source is None:
                if leg.inbound is not None:
                    leg.inbound.forget(ssrc)
                self.unroutable += 1
                return
        if second & 0x7F != source.payload_type:
            if leg.numbers is not None:  # a client that offered: its numbers become ours here
                packet = in_our_numbers(packet, leg.numbers)
                first, second = packet[0], packet[1]
            number = second & 0x7F
            # A late packet of the codec before the change must not change it back.
            is_late = (seq - source.next_seq) & 0xFFFF >= 0x8000
            if number != source.payload_type and (
                is_late or not self._change_codec(source, number)
            ):
                self.unroutable += 1
                return
        source.received += 1
        self.route(source, packet, first, seq, timestamp, arrival_ns)

    # One dense function on purpose, and positional: a call saved is a packet more per core.
    def route(  # noqa: PLR0912, PLR0915, PLR0917
        self, source: Source, packet: bytes, first: int, seq: int, timestamp: int, arrival_ns: int
    ) -> None:
        """Forward and record one plain packet. `first` is its first byte, the rest its header."""
        publication = source.publication

        # 1. Numbers. In order is the rule; everything else is judged apart.
        step = (seq - source.next_seq) & 0xFFFF
        if step == 0:
            source.next_seq = (seq + 1) & 0xFFFF
            source.advanced += 1
            if timestamp != source.last_timestamp:  # interarrival jitter, RFC 3550 A.8
                source.last_timestamp = timestamp
                transit = arrival_ns * source.clock_rate // 1_000_000_000 - timestamp
                change = (transit - source.transit) & 0xFFFFFFFF
                source.transit = transit
                if change >= 0x80000000:
                    change = 0x100000000 - change
                source.jitter += (change - source.jitter) / 16
        elif not self._out_of_order(source, seq, step, timestamp, arrival_ns):
            return

        # 2. The gate; and an SSRC that another has replaced is heard no more.
        if not publication.is_open or publication.source is not source:
            return
        if not source.is_anchored:
            self._anchor(source, seq, timestamp, arrival_ns)
        out_seq = (seq + source.seq_offset) & 0xFFFF
        out_timestamp = (timestamp + source.timestamp_offset) & 0xFFFFFFFF
        if step < 0x8000:  # not late: this is the edge of the stream
            publication.next_seq = (out_seq + 1) & 0xFFFF
            publication.next_timestamp = out_timestamp
            publication.last_arrival_ns = arrival_ns

        # 3. Keep it: for receivers that will ask again, and for the record.
        publication.cache[out_seq & publication.cache_mask] = (out_seq, out_timestamp, packet)
        if source.track_index >= 0:
            tap = source.leg.tap
            if tap is not None:
                tap.rtp(source.track_index, packet, arrival_ns)

        if step >= 0x8000 and is_past(publication, out_timestamp):
            return  # for the record only

        # 4. The one extension we use: audio level is read, abs-send-time is rewritten. A sender
        #    lays its extensions out the same way packet after packet, so the place is remembered
        #    and checked by the block's first five bytes (profile, length, first element).
        at = 0
        if first & 0x10:
            if first & 0x0F == 0 and packet[12:17] == source.extension_head:
                at = source.extension_at
            else:
                at = self._find_extension(source, packet)
        stamp = b""
        if at:
            if source.extension_id == AUDIO_LEVEL_EXTENSION:
                self.hear(source, packet[at] & 0x7F, arrival_ns)
            else:
                stamp = abs_send_time(arrival_ns)

        # 5. One rewritten, encrypted copy per receiver, where the kernel will take it from.
        outbox = self._outbox
        length = len(packet)
        for target in publication.targets:
            leg = target.leg
            address = leg.address
            if address is None:
                continue
            at_slot = outbox.posted
            if at_slot == SEND_SLOTS:
                outbox.flush()
                at_slot = 0
            buffer = outbox.buffers[at_slot]
            view = buffer.view
            view[:length] = packet
            REWRITE.pack_into(
                view, REWRITE_AT, (out_seq + target.seq_offset) & 0xFFFF, out_timestamp, target.ssrc
            )
            if stamp and target.rtx_ssrc:  # never on packets that may be repeated as they are
                view[at : at + 3] = stamp
            buffer.length[0] = length
            if protect(leg.tx, buffer.cdata, buffer.length):
                self.unprotectable += 1
                continue
            outbox.receivers[at_slot][:] = address
            outbox.posted = at_slot + 1
            target.packets += 1
            target.octets += length

        # 6. Screens that offered have payload types of their own: apart, so that this loop is not.
        if publication.translated:
            self._send_translated(publication, packet, out_seq, out_timestamp)

    # -- Slow paths --------------------------------------------------------------------------

    def _send_translated(
        self, publication: Publication, packet: bytes, out_seq: int, out_timestamp: int
    ) -> None:
        """Step 5 for receivers with payload types of their own."""
        for target in publication.translated:
            if is_below_floor(target, out_seq):
                continue
            copy = in_their_numbers(packet, target.numbers or {})
            if copy is None:
                continue
            address = target.leg.address
            if address is None:
                continue
            length = len(copy)
            buffer = self._outbox.room()
            buffer.view[:length] = copy
            REWRITE.pack_into(
                buffer.view,
                REWRITE_AT,
                (out_seq + target.seq_offset) & 0xFFFF,
                (out_timestamp + target.timestamp_offset) & 0xFFFFFFFF,
                target.ssrc,
            )
            buffer.length[0] = length
            if protect(target.leg.tx, buffer.cdata, buffer.length):
                self.unprotectable += 1
                continue
            self._outbox.post(address)
            target.packets += 1
            target.octets += length

    def _out_of_order(
        self, source: Source, seq: int, step: int, timestamp: int, arrival_ns: int
    ) -> bool:
        """A packet that is not the next one: early (holes before it) or late. Whether to use it."""
        publication = source.publication
        if step < 0x8000:
            passed = (timestamp - source.last_timestamp) & 0xFFFFFFFF
            is_after_silence = SILENCE_S * source.clock_rate < passed < 0x80000000
            source.next_seq = (seq + 1) & 0xFFFF
            if is_after_silence:
                # Reported as lost it would halve the sender's rate: nothing of it was the line's
                # being full. The numbers begin here.
                source.first_seq += step
                source.advanced += 1
                source.last_timestamp = timestamp
            else:
                source.advanced += step + 1
            if source.is_anchored and publication.is_open:
                # Old pictures sent again would go ahead of the keyframe that everybody waits for.
                # Sound is small, and asked for: what the sender still has belongs into the record.
                if step > MAX_HOLES or (is_after_silence and publication.name.kind == "video"):
                    source.holes.clear()
                    source.unrecovered += step
                    self._feedback.want_keyframe(publication, arrival_ns)
                else:
                    for missing in range(step):
                        source.holes[(seq - step + missing) & 0xFFFF] = [arrival_ns, 0, 0]
                    while len(source.holes) > MAX_HOLES:  # the oldest are the least likely to come
                        del source.holes[next(iter(source.holes))]
                    self._feedback.watch(source)
            return True
        # Late. From before the gate opened, or already forwarded: of no use. (A number we have
        # forwarded must never go out with other bytes; see the rules above.)
        age = 0x10000 - step
        if age > source.advanced - source.advanced_at_anchor or age > publication.cache_mask:
            return False
        if not source.is_anchored:
            return False
        out_seq = (seq + source.seq_offset) & 0xFFFF
        kept = publication.cache[out_seq & publication.cache_mask]
        if kept is not None and kept[0] == out_seq:
            return False
        if source.holes.pop(seq, None) is not None:
            source.recovered += 1
        return True

    def _repair(self, leg: Leg, ssrc: int, packet: bytes, arrival_ns: int) -> None:
        """An RTX packet: restore what it carries and route that under its own number."""
        if leg.numbers is not None:
            packet = in_our_numbers(packet, leg.numbers)
        source = leg.repairs.get(ssrc)
        if source is None:
            source = leg.sources.get(leg.declared_repairs[ssrc])
            if source is None:  # a repair of something never seen
                return
            leg.repairs[ssrc] = source
        original_type = PRIMARY_OF_RTX.get(packet[1] & 0x7F)
        if original_type != source.payload_type:
            return
        restored = restore_rtx(packet, original_type, source.ssrc)
        if restored is None:  # a bandwidth probe of pure padding
            return
        first, _, seq, timestamp, _ = HEADER.unpack_from(restored)
        if (seq - source.next_seq) & 0xFFFF < 0x8000:
            return  # claims to repair what was not sent yet
        self.route(source, restored, first, seq, timestamp, arrival_ns)

    def _adopt(self, leg: Leg, ssrc: int, packet: bytes) -> Source | None:
        """Find out what a new SSRC is: by the answer, by its mid, or by its codec if only one fits.

        None if it fits nothing that was negotiated, or if this leg has too many sources.
        """
        if leg.numbers is not None:
            packet = in_our_numbers(packet, leg.numbers)
        codec = CODECS.get(packet[1] & 0x7F)
        publication = self._publication_of(leg, ssrc, packet)
        if (
            codec is None
            or publication is None
            or not codec.mime.startswith(publication.name.kind)
            or len(leg.sources) >= MAX_SOURCES_PER_LEG
        ):
            return None
        _, _, seq, timestamp, _ = HEADER.unpack_from(packet)
        source = Source(ssrc, leg, publication, codec, seq)
        source.transit = leg.last_packet_ns * codec.clock_rate // 1_000_000_000 - timestamp
        source.extension_id = (
            AUDIO_LEVEL_EXTENSION if publication.name.kind == "audio" else ABS_SEND_TIME_EXTENSION
        )
        leg.sources[ssrc] = source
        previous = publication.source
        publication.source = source
        self.open_track(source)
        leg.refresh(publication)
        if previous is None or previous.leg is not leg:
            leg.notify(TrackStarted(publication.name))
        return source

    def _publication_of(self, leg: Leg, ssrc: int, packet: bytes) -> Publication | None:
        mid = leg.declared.get(ssrc)
        if mid is None:
            found = find_extension(packet, MID_EXTENSION)
            if found is not None:
                mid = packet[found[0] : found[0] + found[1]].decode("latin-1")
        if mid is not None:
            return leg.publications.get(mid)
        codec = CODECS.get(packet[1] & 0x7F)
        fitting = [
            p for p in leg.publications.values() if codec and codec.mime.startswith(p.name.kind)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _change_codec(self, source: Source, payload_type: int) -> bool:
        """The sender has switched codecs in mid-stream. Whether it switched to one we know."""
        codec = CODECS.get(payload_type)
        if codec is None or not codec.mime.startswith(source.publication.name.kind):
            return False
        source.codec = codec
        source.payload_type = payload_type
        source.clock_rate = codec.clock_rate
        source.track_index = -1
        self.open_track(source)
        source.leg.refresh(source.publication)
        return True

    def open_track(self, source: Source) -> None:
        """Tell the recorder, if there is one and the gate is open, what this source carries."""
        tap = source.leg.tap
        if tap is not None and source.track_index < 0 and source.publication.is_live:
            source.track_index = tap.open_track(source.ssrc, source.publication.name, source.codec)

    def _anchor(self, source: Source, seq: int, timestamp: int, arrival_ns: int) -> None:
        """First packet through the gate: continue the publication's numbers from where they are.

        The timestamp moves on by the time that has passed, so receivers keep sound and picture in
        step over a mute or a new leg.
        """
        publication = source.publication
        source.is_anchored = True
        source.advanced_at_anchor = source.advanced - 1
        source.seq_offset = (publication.next_seq - seq) & 0xFFFF
        elapsed_ns = arrival_ns - publication.last_arrival_ns if publication.last_arrival_ns else 0
        elapsed = elapsed_ns * source.clock_rate // 1_000_000_000
        source.timestamp_offset = (publication.next_timestamp + elapsed - timestamp) & 0xFFFFFFFF
        source.holes.clear()

    def _find_extension(self, source: Source, packet: bytes) -> int:
        """Where the extension we use is in this packet; 0 if absent. Remembers the layout."""
        found = find_extension(packet, source.extension_id)
        wanted = 1 if source.extension_id == AUDIO_LEVEL_EXTENSION else 3
        at = found[0] if found is not None and found[1] == wanted else 0
        if packet[0] & 0x0F == 0:
            source.extension_head = packet[12:17]
            source.extension_at = at
        return at

    def hear(self, source: Source, level: int, arrival_ns: int) -> None:
        """Follow the audio level of a microphone: who speaks, for marks and pages."""
        publication = source.publication
        if level < LOUD_LEVEL:
            publication.loud_packets += 1
            publication.loud_until_ns = arrival_ns + SPEECH_HANGOVER_NS
            if not publication.is_speaking and publication.loud_packets >= LOUD_PACKETS:
                publication.is_speaking = True
                source.leg.notify(SpeakingChanged(speaking=True))
        elif arrival_ns > publication.loud_until_ns:
            publication.loud_packets = 0
            if publication.is_speaking:
                publication.is_speaking = False
                source.leg.notify(SpeakingChanged(speaking=False))
