/* What makes playable files of journals, packet by packet, once more in C.

   media/scan.py, index.py, depayload.py, soundtrack.py, timing.py and mux.py are the truth: what a
   record is, where a packet stands, when a picture is whole and when it is shown is written and
   explained there. This file does the same for a whole journal at once. What it would rather not
   reckon with (times beyond years, more than it has bits for) it refuses as `Unusual`; then Python
   does all of it, and so it does where this could not be built or the processor has no CRC32C.

   Why at all: an hour of talk is more than a million packets, each of which is looked at four times;
   an interpreter needs twelve seconds for it in which nobody can watch, this three. The files are
   the same to the byte as those of the Python path (tests/unit/media/test_reel.py).

   Nothing here reads or writes a file: bytes are mapped journals, and what `Reel.fill` fills. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_bytes.h"

#ifdef __x86_64__

static PyObject *Unusual;

/* As in media/journal.py, scan.py and rtp.py. */
enum { HEAD_BYTES = 12, CRC_BYTES = 4, TYPE_TRACK = 1, TYPE_RTP = 2, TYPE_SEAL = 6 };
enum { RTP_HEADER_BYTES = 12, OFFSET_BITS = 40, SEQ_BITS = 24 };
static const uint64_t OFFSET_MASK = ((uint64_t)1 << OFFSET_BITS) - 1;
static const int64_t SECOND_NS = 1000000000;
/* Nine years: beyond it Python's numbers are asked, which have no end. */
static const int64_t LONG_NS = (int64_t)1 << 58;
static const int64_t LONG_CLOCK_NS = (int64_t)1 << 62;
/* An RTP time of 34 bits at the least of these is still a time of nanoseconds in 64. */
enum { MIN_CLOCK_RATE = 1000, MAX_CLOCK_RATE = 1000000 };
static const int64_t LONG_TICKS = (int64_t)1 << 34;

static int unusual(const char *words)
{
    PyErr_SetString(Unusual, words);
    return -1;
}

/* -- Numbers and rows ----------------------------------------------------------------------------- */

/* As Python divides: towards the smaller number. `by` is positive. */
static inline int64_t floor_div(__int128 value, int64_t by)
{
    __int128 whole = value / by;
    return (int64_t)(whole - (value % by < 0));
}

/* A row that grows. */
typedef struct {
    void *at;
    size_t count, room, item_bytes;
} Row;

/* Room for one more item; NULL with an exception if there is no memory. */
static void *one_more(Row *row)
{
    if (row->count == row->room) {
        size_t room = row->room ? row->room + row->room / 2 : 256;
        void *at = realloc(row->at, room * row->item_bytes);
        if (at == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        row->at = at;
        row->room = room;
    }
    return (char *)row->at + row->item_bytes * row->count++;
}

static int keep_number(Row *row, uint64_t value)
{
    uint64_t *place = one_more(row);
    if (place == NULL)
        return -1;
    *place = value;
    return 0;
}

/* -- Records ------------------------------------------------------------------------------------- */

/* The bytes of the record at `offset` with its checksum; 0 if none holds there. */
static size_t record_at(const uint8_t *data, size_t size, size_t offset, uint32_t seed)
{
    if (offset + HEAD_BYTES + CRC_BYTES > size)
        return 0;
    const uint8_t *record = data + offset;
    size_t body = HEAD_BYTES + (size_t)read_16(record);
    if (record[2] < TYPE_TRACK || record[2] > TYPE_SEAL || offset + body + CRC_BYTES > size)
        return 0;
    return crc32c(seed, record, body) == read_32(record + body) ? body + CRC_BYTES : 0;
}

/* survey(data, offset, seed) -> (end, records, first_ns, last_ns), as scan.survey; `end` is where
   the first record that does not hold begins. Others may run meanwhile. */
static PyObject *survey(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer data;
    Py_ssize_t offset;
    unsigned int seed;
    if (!PyArg_ParseTuple(arguments, "y*nI", &data, &offset, &seed))
        return NULL;
    uint64_t first = UINT64_MAX, last = 0;
    Py_ssize_t records = 0;
    int is_timed = 0;
    Py_BEGIN_ALLOW_THREADS
    for (size_t bytes; (bytes = record_at(data.buf, (size_t)data.len, (size_t)offset, seed)) > 0;
         offset += (Py_ssize_t)bytes) {
        const uint8_t *record = (const uint8_t *)data.buf + offset;
        records++;
        if (record[2] == TYPE_TRACK || record[2] == TYPE_SEAL)
            continue;
        uint64_t at_ns = read_64(record + 4);
        is_timed = 1;
        first = at_ns < first ? at_ns : first;
        last = at_ns > last ? at_ns : last;
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    if (!is_timed)
        return Py_BuildValue("nnOO", offset, records, Py_None, Py_None);
    return Py_BuildValue("nnKK", offset, records, (unsigned long long)first,
                         (unsigned long long)last);
}

/* Where the payload of an RTP packet stands; 0 if the packet lies about its own length. As
   index._payload_span. */
static int payload_of(const uint8_t *packet, size_t length, size_t *start, size_t *end)
{
    uint8_t first = packet[0];
    if (first >> 6 != 2)
        return 0;
    *start = RTP_HEADER_BYTES + 4 * (size_t)(first & 0x0F);
    if (first & 0x10) {
        if (*start + 4 > length)
            return 0;
        *start += 4 + 4 * (size_t)read_16(packet + *start + 2);
    }
    *end = length;
    if (first & 0x20) {
        size_t padding = packet[length - 1];
        if (padding == 0 || *start + padding > length)
            return 0;
        *end -= padding;
    }
    return *start <= *end;
}

/* What a VP8 descriptor says; as depayload.read_vp8. 0 if it is cut. */
typedef struct {
    size_t begins;
    int starts, picture_id; /* -1: none */
} Piece;

static int read_vp8(const uint8_t *payload, size_t bytes, Piece *piece)
{
    size_t at = 1;
    piece->picture_id = -1;
    if (bytes == 0)
        return 0;
    if (payload[0] & 0x80) {
        if (bytes < 2)
            return 0;
        uint8_t flags = payload[1];
        at = 2;
        if (flags & 0x80) {
            if (bytes < 3)
                return 0;
            piece->picture_id = payload[2] & 0x7F;
            at = 3;
            if (payload[2] & 0x80) {
                if (bytes < 4)
                    return 0;
                piece->picture_id = piece->picture_id << 8 | payload[3];
                at = 4;
            }
        }
        at += ((flags & 0x40) != 0) + ((flags & 0x30) != 0);
    }
    piece->begins = at;
    piece->starts = (payload[0] & 0x17) == 0x10;
    return at < bytes;
}

/* Width and height of a VP8 keyframe of which these are the first bytes; as depayload.vp8_size. */
static int vp8_size(const uint8_t *frame, size_t bytes, int *width, int *height)
{
    if (bytes < 10 || frame[0] & 1 || memcmp(frame + 3, "\x9d\x01\x2a", 3) != 0)
        return 0;
    *width = (frame[6] | frame[7] << 8) & 0x3FFF;
    *height = (frame[8] | frame[9] << 8) & 0x3FFF;
    return *width && *height;
}

/* -- timing.SteadyClock -------------------------------------------------------------------------- */

typedef struct {
    int64_t rate, last, leapt, first_ticks, first_ns;
    int has_last, has_first;
} Clock;

enum { MAX_LEAP_S = 60 };

static int64_t ticks_of(Clock *clock, uint32_t rtp_time, int64_t at_ns)
{
    static const int64_t HALF = (int64_t)1 << 31;
    int64_t apart = (int64_t)(((uint64_t)rtp_time - (uint64_t)clock->last + (uint64_t)HALF)
                              & 0xFFFFFFFFu);
    clock->last = clock->has_last ? clock->last + apart - HALF
                                  : (int64_t)rtp_time + 2 * HALF;
    clock->has_last = 1;
    int64_t ticks = clock->last + clock->leapt;
    if (!clock->has_first) {
        clock->has_first = 1;
        clock->first_ticks = ticks;
        clock->first_ns = at_ns;
    }
    int64_t expected = clock->first_ticks
        + floor_div((__int128)(at_ns - clock->first_ns) * clock->rate, SECOND_NS);
    int64_t wrong = ticks - expected;
    if (wrong > MAX_LEAP_S * clock->rate || wrong < -MAX_LEAP_S * clock->rate) {
        clock->leapt -= wrong;
        return expected;
    }
    return ticks;
}

/* -- index.TrackIndex ---------------------------------------------------------------------------- */

enum { ANCHOR_EVERY_NS = 100000000, VP8_HEAD_BYTES = 32 };

typedef struct {
    PyObject_HEAD
    int payload_type, is_vp8, is_in_order, width, height;
    Row keys, anchors;
    Clock times;
    int64_t first_rtp_time, first_arrival_ns, last_arrival_ns, highest_seq, foreign;
    int64_t anchored_rtp_time, sized_rtp_time;
} Track;

static int track_init(Track *track, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"payload_type", "clock_rate", "is_vp8", NULL};
    long long rate;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "iLp", names, &track->payload_type,
                                     &rate, &track->is_vp8))
        return -1;
    if (rate < MIN_CLOCK_RATE || rate > MAX_CLOCK_RATE)
        return unusual("a clock rate beyond what is reckoned with here");
    track->keys.item_bytes = track->anchors.item_bytes = sizeof(uint64_t);
    track->times.rate = rate;
    track->is_in_order = 1;
    track->anchored_rtp_time = track->sized_rtp_time = -1;
    return 0;
}

static void track_dealloc(Track *track)
{
    free(track->keys.at);
    free(track->anchors.at);
    Py_TYPE(track)->tp_free(track);
}

static void note_size(Track *track, uint32_t rtp_time, const uint8_t *packet, size_t length)
{
    size_t start, end;
    Piece piece;
    if (!payload_of(packet, length, &start, &end))
        return;
    size_t bytes = end - start < VP8_HEAD_BYTES ? end - start : VP8_HEAD_BYTES;
    if (!read_vp8(packet + start, bytes, &piece) || !piece.starts)
        return;
    track->sized_rtp_time = rtp_time;
    int width, height;
    if (vp8_size(packet + start + piece.begins, bytes - piece.begins, &width, &height)
        && (width > track->width || (width == track->width && height > track->height))) {
        track->width = width;
        track->height = height;
    }
}

/* As index._index_packet. */
static int index_packet(Track *track, uint16_t seq, uint32_t rtp_time, uint64_t offset,
                        int64_t at_ns)
{
    int64_t highest = track->highest_seq;
    int is_first = track->keys.count == 0;
    int64_t extended = is_first
        ? (int64_t)seq + 0x10000
        : highest + (int64_t)(((uint64_t)seq - (uint64_t)highest + 0x8000) & 0xFFFF) - 0x8000;
    if (extended >> SEQ_BITS) {
        track->foreign++;
        return 0;
    }
    if (is_first) {
        track->first_rtp_time = ticks_of(&track->times, rtp_time, at_ns);
        track->first_arrival_ns = at_ns;
    }
    track->last_arrival_ns = at_ns;
    if (keep_number(&track->keys, (uint64_t)extended << OFFSET_BITS | offset) < 0)
        return -1;
    if (extended <= highest) {
        track->is_in_order = 0;
        return 0;
    }
    track->highest_seq = extended;
    if (rtp_time == track->anchored_rtp_time)
        return 0;
    track->anchored_rtp_time = rtp_time;
    int64_t rtp_ns = floor_div((__int128)ticks_of(&track->times, rtp_time, at_ns) * SECOND_NS,
                               track->times.rate);
    int64_t *last = track->anchors.count
        ? (int64_t *)track->anchors.at + track->anchors.count - 2 : NULL;
    if (last == NULL || rtp_ns - last[0] > ANCHOR_EVERY_NS)
        return keep_number(&track->anchors, (uint64_t)rtp_ns) < 0
            || keep_number(&track->anchors, (uint64_t)at_ns) < 0 ? -1 : 0;
    if (at_ns - rtp_ns < last[1] - last[0]) {
        last[0] = rtp_ns;
        last[1] = at_ns;
    }
    return 0;
}

static int by_number(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

/* Of packets that came twice the first stays. */
static void sort_keys(Row *keys)
{
    uint64_t *at = keys->at;
    size_t kept = 0;
    qsort(at, keys->count, sizeof *at, by_number);
    for (size_t i = 0; i < keys->count; i++)
        if (kept == 0 || at[i] >> OFFSET_BITS != at[kept - 1] >> OFFSET_BITS)
            at[kept++] = at[i];
    keys->count = kept;
}

/* found() -> (keys, anchors, first_rtp_time, first_arrival_ns, last_arrival_ns, foreign, width,
   height): the keys sorted, the anchors as pairs, both as 64-bit numbers of this machine. */
static PyObject *track_found(Track *track, PyObject *nothing)
{
    (void)nothing;
    if (!track->is_in_order)
        sort_keys(&track->keys);
    track->is_in_order = 1;
    return Py_BuildValue(
        "y#y#LLLLii", track->keys.count ? track->keys.at : "",
        (Py_ssize_t)(track->keys.count * sizeof(uint64_t)),
        track->anchors.count ? track->anchors.at : "", (Py_ssize_t)(track->anchors.count * sizeof(uint64_t)),
        (long long)track->first_rtp_time, (long long)track->first_arrival_ns,
        (long long)track->last_arrival_ns, (long long)track->foreign, track->width, track->height);
}

static PyMethodDef track_methods[] = {
    {"found", (PyCFunction)track_found, METH_NOARGS, NULL},
    {NULL},
};

static PyTypeObject TrackType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "media._reel.Track",
    .tp_basicsize = sizeof(Track),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)track_init,
    .tp_dealloc = (destructor)track_dealloc,
    .tp_methods = track_methods,
};

/* One record of a packet; -1 with an exception if it is unusual. */
static int index_record(Track *track, const uint8_t *record, uint64_t offset, int64_t t0_ns)
{
    const uint8_t *packet = record + HEAD_BYTES;
    size_t length = read_16(record);
    uint64_t at_ns = read_64(record + 4);
    if (at_ns > (uint64_t)LONG_CLOCK_NS || offset > OFFSET_MASK)
        return unusual("a time or a place beyond what is reckoned with here");
    int64_t since_ns = (int64_t)at_ns - t0_ns;
    if (since_ns > LONG_NS || since_ns < -LONG_NS)
        return unusual("a time beyond what is reckoned with here");
    if (length < RTP_HEADER_BYTES || (packet[1] & 0x7F) != track->payload_type) {
        track->foreign++;
        return 0;
    }
    uint32_t rtp_time = read_32(packet + 4);
    if (index_packet(track, read_16(packet + 2), rtp_time, offset, since_ns) < 0)
        return -1;
    if (track->is_vp8 && rtp_time != track->sized_rtp_time)
        note_size(track, rtp_time, packet, length);
    return 0;
}

/* walk(data, offset, base, t0_ns, seed, tracks) -> offset: packets go to their tracks, those of no
   known track are passed by. Ends in front of the first record that holds no packet or does not
   hold at all. */
static PyObject *walk(PyObject *module, PyObject *arguments)
{
    (void)module;
    Py_buffer data;
    Py_ssize_t offset;
    unsigned long long base;
    long long t0_ns;
    unsigned int seed;
    PyObject *tracks;
    if (!PyArg_ParseTuple(arguments, "y*nKLIO!", &data, &offset, &base, &t0_ns, &seed,
                          &PyDict_Type, &tracks))
        return NULL;
    Track *by_number_of[256] = {0};
    PyObject *key, *value, *answer = NULL;
    for (Py_ssize_t at = 0; PyDict_Next(tracks, &at, &key, &value);) {
        long number = PyLong_AsLong(key);
        if (number < 0 || number > 255 || !Py_IS_TYPE(value, &TrackType)) {
            PyErr_SetString(PyExc_TypeError, "tracks by their numbers, please");
            goto out;
        }
        by_number_of[number] = (Track *)value;
    }
    for (size_t bytes; (bytes = record_at(data.buf, (size_t)data.len, (size_t)offset, seed)) > 0;
         offset += (Py_ssize_t)bytes) {
        const uint8_t *record = (const uint8_t *)data.buf + offset;
        if (record[2] != TYPE_RTP)
            break;
        Track *track = by_number_of[record[3]];
        if (track != NULL && index_record(track, record, base + (uint64_t)offset, t0_ns) < 0)
            goto out;
    }
    answer = PyLong_FromSsize_t(offset);
out:
    PyBuffer_Release(&data);
    return answer;
}

/* -- Sources: a track of a leg, to be read in order ---------------------------------------------- */

typedef struct {
    Py_buffer data;
    uint64_t base;
    int64_t t0_ns;
} Segment;

typedef struct {
    int64_t origin_ns, offset_ns;
    double drift;
} ClockMap;

typedef struct {
    Py_buffer keys;
    Segment *segments;
    size_t segment_count;
    Clock times;
    ClockMap maps[2];
    int map_count;
    int64_t under_way_ns;
} Source;

static void close_source(Source *source)
{
    if (source == NULL)
        return;
    for (size_t i = 0; i < source->segment_count; i++)
        PyBuffer_Release(&source->segments[i].data);
    PyBuffer_Release(&source->keys);
    free(source->segments);
    free(source);
}

static int open_segments(Source *source, PyObject *segments)
{
    Py_ssize_t count = PyTuple_GET_SIZE(segments);
    source->segments = calloc((size_t)count + 1, sizeof(Segment));
    if (source->segments == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Segment *segment = &source->segments[i];
        unsigned long long base;
        long long t0_ns;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(segments, i), "y*KL", &segment->data, &base,
                              &t0_ns))
            return -1;
        source->segment_count++;
        segment->base = base;
        segment->t0_ns = t0_ns;
    }
    return 0;
}

static int open_maps(Source *source, PyObject *maps)
{
    if (PyTuple_GET_SIZE(maps) < 1 || PyTuple_GET_SIZE(maps) > 2)
        return unusual("a place on the timeline found in more than two steps");
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(maps); i++) {
        ClockMap *map = &source->maps[source->map_count++];
        long long origin_ns, offset_ns;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(maps, i), "LLd", &origin_ns, &offset_ns,
                              &map->drift))
            return -1;
        if (llabs(origin_ns) > LONG_CLOCK_NS || llabs(offset_ns) > LONG_CLOCK_NS
            || !(fabs(map->drift) < 0.01))
            return unusual("a clock beyond what is reckoned with here");
        map->origin_ns = origin_ns;
        map->offset_ns = offset_ns;
    }
    return 0;
}

/* (keys, ((data, base, t0_ns), …), clock_rate, first_rtp_time, first_arrival_ns,
   ((origin_ns, offset_ns, drift), …), under_way_ns) */
static Source *open_source(PyObject *arguments)
{
    Source *source = calloc(1, sizeof *source);
    if (source == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    PyObject *segments, *maps;
    long long rate, first_rtp_time, first_arrival_ns, under_way_ns;
    if (!PyArg_ParseTuple(arguments, "y*O!LLLO!L", &source->keys, &PyTuple_Type, &segments, &rate,
                          &first_rtp_time, &first_arrival_ns, &PyTuple_Type, &maps, &under_way_ns)
        || open_segments(source, segments) < 0 || open_maps(source, maps) < 0) {
        /* A range that Python holds and a machine word does not. */
        if (PyErr_ExceptionMatches(PyExc_OverflowError))
            unusual("a number beyond what is reckoned with here");
        close_source(source);
        return NULL;
    }
    if (rate < MIN_CLOCK_RATE || rate > MAX_CLOCK_RATE || llabs(first_rtp_time) > LONG_TICKS
        || llabs(first_arrival_ns) > LONG_NS || llabs(under_way_ns) > LONG_NS) {
        unusual("a number beyond what is reckoned with here");
        close_source(source);
        return NULL;
    }
    source->times = (Clock){.rate = rate, .last = first_rtp_time, .first_ticks = first_rtp_time,
                            .first_ns = first_arrival_ns, .has_last = 1, .has_first = 1};
    source->under_way_ns = under_way_ns;
    return source;
}

typedef struct {
    int64_t at_ns;
    uint32_t rtp_time;
    int marker;
    const uint8_t *payload;
    size_t bytes;
} Packet;

enum { IS_MALFORMED = 0, IS_PACKET = 1 };

/* The packet of one key; -1 with an exception if the key leads nowhere. */
static int packet_of(const Source *source, uint64_t key, Packet *packet)
{
    uint64_t offset = key & OFFSET_MASK;
    size_t which = source->segment_count;
    while (which > 0 && source->segments[which - 1].base > offset)
        which--;
    if (which == 0)
        return unusual("a packet outside of its journal");
    const Segment *segment = &source->segments[which - 1];
    offset -= segment->base;
    if (offset + HEAD_BYTES + RTP_HEADER_BYTES > (uint64_t)segment->data.len)
        return unusual("a packet outside of its journal");
    const uint8_t *record = (const uint8_t *)segment->data.buf + offset;
    size_t length = read_16(record), start, end;
    uint64_t at_ns = read_64(record + 4);
    if (length < RTP_HEADER_BYTES || offset + HEAD_BYTES + length > (uint64_t)segment->data.len
        || at_ns > (uint64_t)LONG_CLOCK_NS)
        return unusual("a packet outside of its journal");
    const uint8_t *rtp = record + HEAD_BYTES;
    if (!payload_of(rtp, length, &start, &end))
        return IS_MALFORMED;
    packet->at_ns = (int64_t)at_ns - segment->t0_ns;
    if (llabs(packet->at_ns) > LONG_NS)
        return unusual("a time beyond what is reckoned with here");
    packet->rtp_time = read_32(rtp + 4);
    packet->marker = rtp[1] >= 0x80;
    packet->payload = rtp + start;
    packet->bytes = end - start;
    return IS_PACKET;
}

/* Microseconds on the session's timeline; as index.Placing and timing.ClockMap. */
static int placed_us(const Source *source, int64_t ticks, int64_t *at_us)
{
    __int128 ns = floor_div((__int128)ticks * SECOND_NS, source->times.rate);
    for (int i = 0; i < source->map_count; i++) {
        const ClockMap *map = &source->maps[i];
        /* Python rounds halves to even, and so does the processor. */
        ns += map->offset_ns + llrint(map->drift * (double)(ns - map->origin_ns));
    }
    ns -= source->under_way_ns;
    if (ns > LONG_NS || ns < -LONG_NS)
        return unusual("a time beyond what is reckoned with here");
    *at_us = floor_div(ns, 1000);
    return 0;
}

/* -- The reel: one file's samples ---------------------------------------------------------------- */

/* As in media/mux.py, soundtrack.py and depayload.py. */
enum { LAST_FRAME_US = 40000, SILENCE_US = 20000, SILENCE_BYTES = 3 };
enum { NEAR_US = 12000, FAR_US = 25000, HOLE_US = 10000, LEFT_OUT_AT_MOST = 10 };
static const double QUIET_SHARE = 0.6;
static const uint8_t SILENCE[SILENCE_BYTES] = {0xF8, 0xFF, 0xFE};
enum { NO_SOURCE = 0xFFFF };

typedef struct {
    int64_t at_us;
    uint64_t first_key;
    uint32_t keys, bytes, duration_us;
    uint16_t source; /* NO_SOURCE: silence of ours */
    uint8_t is_keyframe, is_filler;
} Sample;

typedef struct {
    int64_t at_ms;
    uint64_t first_block, bytes;
} Cluster;

typedef struct {
    PyObject_HEAD
    Row sources, pictures, sounds, clusters;
    int64_t last_us; /* of the pictures */
    int width, height; /* of the first one */
    int has_sound;
    int64_t end_us, spoken_us, since_left_out; /* soundtrack.run_together's */
    double usual_bytes;
    size_t first_sound, end_sound; /* what is kept of `sounds` */
    int64_t zero_us;
    size_t picture, sound, cluster; /* how far `fill` has come */
    uint64_t block;
} Reel;

static int reel_init(Reel *reel, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {NULL};
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "", names))
        return -1;
    reel->sources.item_bytes = sizeof(Source *);
    reel->pictures.item_bytes = reel->sounds.item_bytes = sizeof(Sample);
    reel->clusters.item_bytes = sizeof(Cluster);
    return 0;
}

static PyObject *reel_close(Reel *reel, PyObject *nothing)
{
    (void)nothing;
    for (size_t i = 0; i < reel->sources.count; i++)
        close_source(((Source **)reel->sources.at)[i]);
    reel->sources.count = reel->pictures.count = reel->sounds.count = reel->clusters.count = 0;
    reel->picture = reel->sound = reel->first_sound = reel->end_sound = 0;
    Py_RETURN_NONE;
}

static void reel_dealloc(Reel *reel)
{
    Py_DECREF(reel_close(reel, NULL));
    free(reel->sources.at);
    free(reel->pictures.at);
    free(reel->sounds.at);
    free(reel->clusters.at);
    Py_TYPE(reel)->tp_free(reel);
}

static Source *add_source(Reel *reel, PyObject *arguments)
{
    if (reel->sources.count >= NO_SOURCE) {
        unusual("more tracks than are reckoned with here");
        return NULL;
    }
    Source *source = open_source(arguments);
    Source **place = source == NULL ? NULL : one_more(&reel->sources);
    if (place == NULL) {
        close_source(source);
        return NULL;
    }
    *place = source;
    return source;
}

/* A frame under construction; as depayload._Assembler and Vp8Depayloader. */
typedef struct {
    int64_t expected, rtp_time; /* -1: none; extended numbers and times may not be negative here */
    int has_expected, has_time;
    int is_broken, is_suspect, waits_for_keyframe;
    int last_picture_id, picture_id;
    uint64_t first_key, last_key, bytes;
    uint32_t pieces;
    uint8_t head[10];
    size_t head_bytes;
    long long lost_frames;
} Assembly;

typedef struct {
    int64_t rtp_time;
    uint64_t first_key;
    uint32_t keys, bytes;
    int is_keyframe, width, height; /* sizes of keyframes only */
} Frame;

static int finish(Assembly *assembly, Frame *frame)
{
    int is_broken = assembly->is_broken, width = 0, height = 0;
    assembly->has_time = assembly->is_broken = 0;
    int is_keyframe = assembly->head_bytes > 0 && !(assembly->head[0] & 1);
    if (is_broken || assembly->pieces == 0 || assembly->bytes < 3 || assembly->bytes > INT32_MAX
        || (is_keyframe && !vp8_size(assembly->head, assembly->head_bytes, &width, &height))) {
        assembly->lost_frames++;
        assembly->is_suspect = 1;
        return 0;
    }
    int new_id = assembly->picture_id, old_id = assembly->last_picture_id;
    int follows = new_id >= 0 && old_id >= 0 && ((new_id - old_id) & 0x7F) == 1;
    if (is_keyframe)
        assembly->waits_for_keyframe = 0;
    else if (assembly->is_suspect && !follows)
        assembly->waits_for_keyframe = 1;
    assembly->is_suspect = 0;
    if (assembly->waits_for_keyframe) {
        assembly->lost_frames++;
        return 0;
    }
    assembly->last_picture_id = new_id;
    *frame = (Frame){assembly->rtp_time, assembly->first_key,
                     (uint32_t)(assembly->last_key - assembly->first_key + 1),
                     (uint32_t)assembly->bytes, is_keyframe, width, height};
    return 1;
}

/* One packet further, key number `at`; 1 if `frame` is complete. */
static int push(Assembly *assembly, uint64_t at, int64_t seq, int64_t rtp_time,
                const Packet *packet, Frame *frame)
{
    if (assembly->has_expected && seq != assembly->expected) {
        assembly->is_suspect = 1;
        assembly->is_broken = assembly->has_time;
    }
    assembly->has_expected = 1;
    assembly->expected = seq + 1;
    if (packet->bytes == 0)
        return 0;
    int done = 0;
    if (assembly->has_time && rtp_time != assembly->rtp_time)
        done = finish(assembly, frame);
    Piece piece;
    int is_readable = read_vp8(packet->payload, packet->bytes, &piece);
    if (!assembly->has_time) {
        assembly->has_time = 1;
        assembly->rtp_time = rtp_time;
        assembly->is_broken = !is_readable || !piece.starts;
        assembly->pieces = 0;
        assembly->bytes = assembly->head_bytes = 0;
    }
    if (!is_readable) {
        assembly->is_broken = 1;
    } else {
        if (assembly->pieces++ == 0) {
            assembly->first_key = at;
            assembly->picture_id = piece.picture_id;
        }
        assembly->last_key = at;
        const uint8_t *data = packet->payload + piece.begins;
        size_t bytes = packet->bytes - piece.begins;
        assembly->bytes += bytes;
        size_t wanted = sizeof assembly->head - assembly->head_bytes;
        size_t taken = bytes < wanted ? bytes : wanted;
        memcpy(assembly->head + assembly->head_bytes, data, taken);
        assembly->head_bytes += taken;
    }
    if (packet->marker && !done)
        return finish(assembly, frame);
    return done;
}

static int add_picture(Reel *reel, const Source *source, const Frame *frame)
{
    int64_t at_us;
    if (placed_us(source, frame->rtp_time, &at_us) < 0)
        return -1;
    if (reel->pictures.count > 0 && at_us < reel->last_us + 1000)
        at_us = reel->last_us + 1000;
    reel->last_us = at_us;
    if (reel->pictures.count == 0) {
        reel->width = frame->width;
        reel->height = frame->height;
    }
    Sample *sample = one_more(&reel->pictures);
    if (sample == NULL)
        return -1;
    *sample = (Sample){.at_us = at_us, .first_key = frame->first_key, .keys = frame->keys,
                       .bytes = frame->bytes, .duration_us = LAST_FRAME_US,
                       .source = (uint16_t)(reel->sources.count - 1),
                       .is_keyframe = (uint8_t)frame->is_keyframe};
    return 0;
}

/* pictures(source…) -> lost frames; as mux._video_samples for one source of VP8. */
static PyObject *reel_pictures(Reel *reel, PyObject *arguments)
{
    Source *source = add_source(reel, arguments);
    if (source == NULL)
        return NULL;
    const uint64_t *keys = source->keys.buf;
    uint64_t count = (uint64_t)source->keys.len / sizeof *keys;
    Assembly assembly = {.waits_for_keyframe = 1, .last_picture_id = -1, .picture_id = -1};
    int64_t last_rtp_time = -1, ticks = 0;
    for (uint64_t i = 0; i < count; i++) {
        Packet packet;
        Frame frame;
        int found = packet_of(source, keys[i], &packet);
        if (found < 0)
            return NULL;
        if (found == IS_MALFORMED)
            continue;
        if (packet.rtp_time != last_rtp_time) {
            last_rtp_time = packet.rtp_time;
            ticks = ticks_of(&source->times, packet.rtp_time, packet.at_ns);
        }
        if (push(&assembly, i, (int64_t)(keys[i] >> OFFSET_BITS), ticks, &packet, &frame)
            && add_picture(reel, source, &frame) < 0)
            return NULL;
    }
    return PyLong_FromLongLong(assembly.lost_frames);
}

/* As depayload.opus_duration_us. */
static int64_t opus_duration_us(const uint8_t *packet, size_t bytes)
{
    static const int silk[] = {10000, 20000, 40000, 60000}, celt[] = {2500, 5000, 10000, 20000};
    if (bytes == 0)
        return 0;
    int config = packet[0] >> 3, code = packet[0] & 3;
    int frame_us = config < 12 ? silk[config & 3]
        : config < 16          ? silk[config & 1]
                               : celt[config & 3];
    int frames = code == 0 ? 1 : code < 3 ? 2 : bytes > 1 ? packet[1] & 0x3F : 0;
    int64_t total = (int64_t)frames * frame_us;
    return total <= 120000 ? total : 0;
}

static int add_sound(Reel *reel, int64_t at_us, uint64_t key, const Packet *packet,
                     int64_t duration_us, int is_filler)
{
    Sample *sample = one_more(&reel->sounds);
    if (sample == NULL)
        return -1;
    *sample = (Sample){.at_us = at_us, .first_key = key, .keys = packet != NULL,
                       .bytes = packet ? (uint32_t)packet->bytes : SILENCE_BYTES,
                       .duration_us = (uint32_t)duration_us,
                       .source = packet ? (uint16_t)(reel->sources.count - 1) : NO_SOURCE,
                       .is_keyframe = 1, .is_filler = (uint8_t)is_filler};
    return 0;
}

/* One turn of soundtrack.run_together. */
static int run_together(Reel *reel, int64_t at_us, uint64_t key, const Packet *packet,
                        int64_t duration_us)
{
    if (!reel->has_sound) {
        reel->has_sound = 1;
        reel->end_us = reel->spoken_us = at_us;
        reel->usual_bytes = (double)packet->bytes;
        reel->since_left_out = LEFT_OUT_AT_MOST;
    }
    if (at_us - reel->spoken_us >= HOLE_US)
        for (; at_us - reel->end_us > NEAR_US; reel->end_us += SILENCE_US)
            if (add_sound(reel, reel->end_us, 0, NULL, SILENCE_US, 1) < 0)
                return -1;
    reel->usual_bytes += ((double)packet->bytes - reel->usual_bytes) / 64;
    reel->spoken_us = at_us + duration_us;
    int64_t late_us = reel->end_us - at_us;
    reel->since_left_out++;
    if (llabs(late_us) > NEAR_US) {
        int is_due = llabs(late_us) > FAR_US
            || (double)packet->bytes < QUIET_SHARE * reel->usual_bytes;
        if (is_due && late_us > 0 && reel->since_left_out > LEFT_OUT_AT_MOST) {
            reel->since_left_out = 0;
            return 0;
        }
        if (is_due && late_us < 0) {
            if (add_sound(reel, reel->end_us, key, packet, duration_us, 1) < 0)
                return -1;
            reel->end_us += duration_us;
        }
    }
    if (add_sound(reel, reel->end_us, key, packet, duration_us, 0) < 0)
        return -1;
    reel->end_us += duration_us;
    return 0;
}

/* sounds(source…): as mux._sounds for one source, run together with those before. */
static PyObject *reel_sounds(Reel *reel, PyObject *arguments)
{
    Source *source = add_source(reel, arguments);
    if (source == NULL)
        return NULL;
    const uint64_t *keys = source->keys.buf;
    uint64_t count = (uint64_t)source->keys.len / sizeof *keys;
    int64_t last_rtp_time = -1, ticks = 0;
    for (uint64_t i = 0; i < count; i++) {
        Packet packet;
        int found = packet_of(source, keys[i], &packet);
        if (found < 0)
            return NULL;
        if (found == IS_MALFORMED)
            continue;
        if (packet.rtp_time != last_rtp_time) {
            last_rtp_time = packet.rtp_time;
            ticks = ticks_of(&source->times, packet.rtp_time, packet.at_ns);
        }
        int64_t at_us, duration_us = opus_duration_us(packet.payload, packet.bytes);
        if (duration_us
            && (placed_us(source, ticks, &at_us) < 0
                || run_together(reel, at_us, i, &packet, duration_us) < 0))
            return NULL;
    }
    reel->end_sound = reel->sounds.count;
    Py_RETURN_NONE;
}

/* within(from_us, until_us): of the sounds, keep these; as mux._within. */
static PyObject *reel_within(Reel *reel, PyObject *arguments)
{
    long long from_us, until_us;
    if (!PyArg_ParseTuple(arguments, "LL", &from_us, &until_us))
        return NULL;
    const Sample *sounds = reel->sounds.at;
    size_t first = 0, end = reel->sounds.count;
    while (first < end && sounds[first].at_us < from_us)
        first++;
    while (end > first && sounds[end - 1].at_us >= until_us)
        end--;
    reel->first_sound = first;
    reel->end_sound = end;
    Py_RETURN_NONE;
}

static PyObject *first_us(const Sample *samples, size_t first, size_t end)
{
    return first < end ? PyLong_FromLongLong(samples[first].at_us) : Py_NewRef(Py_None);
}

/* begins() -> (first picture's µs or None, first sound's, first picture's width, its height) */
static PyObject *reel_begins(Reel *reel, PyObject *nothing)
{
    (void)nothing;
    PyObject *picture = first_us(reel->pictures.at, 0, reel->pictures.count);
    PyObject *sound = first_us(reel->sounds.at, reel->first_sound, reel->end_sound);
    if (picture == NULL || sound == NULL) {
        Py_XDECREF(picture);
        Py_XDECREF(sound);
        return NULL;
    }
    return Py_BuildValue("NNii", picture, sound, reel->width, reel->height);
}

/* -- What mux._measured finds out ---------------------------------------------------------------- */

static int note_gaps(const Sample *samples, size_t first, size_t end, int is_audio,
                     int64_t limit_us, long long *counted, int64_t *end_us, PyObject *gaps)
{
    int64_t before_us = 0;
    int has_before = 0;
    for (size_t i = first; i < end; i++) {
        const Sample *sample = &samples[i];
        int64_t over_us = sample->at_us + sample->duration_us;
        *end_us = over_us > *end_us ? over_us : *end_us;
        if (sample->is_filler)
            continue;
        ++*counted;
        if (has_before && sample->at_us - before_us >= limit_us) {
            PyObject *gap = Py_BuildValue("OLL", is_audio ? Py_True : Py_False,
                                          (long long)before_us, (long long)sample->at_us);
            int failed = gap == NULL || PyList_Append(gaps, gap) < 0;
            Py_XDECREF(gap);
            if (failed)
                return -1;
        }
        has_before = 1;
        before_us = is_audio ? over_us : sample->at_us;
    }
    return 0;
}

/* measured(audio_gap_us, video_gap_us) ->
   (audio packets, pictures, end_us, [(is audio, from_us, to_us), …]) */
static PyObject *reel_measured(Reel *reel, PyObject *arguments)
{
    long long audio_gap_us, video_gap_us, sounds = 0, pictures = 0;
    if (!PyArg_ParseTuple(arguments, "LL", &audio_gap_us, &video_gap_us))
        return NULL;
    int64_t end_us = 0;
    PyObject *gaps = PyList_New(0);
    if (gaps == NULL
        || note_gaps(reel->sounds.at, reel->first_sound, reel->end_sound, 1, audio_gap_us, &sounds,
                     &end_us, gaps) < 0
        || note_gaps(reel->pictures.at, 0, reel->pictures.count, 0, video_gap_us, &pictures,
                     &end_us, gaps) < 0) {
        Py_XDECREF(gaps);
        return NULL;
    }
    return Py_BuildValue("LLLN", sounds, pictures, (long long)end_us, gaps);
}

/* -- Clusters and blocks (RFC 9559, 5.1.3), as libavformat's muxer arranges them ------------------ */

enum { CLUSTER_MS = 5000, CLUSTER_BYTES = 5 * 1024 * 1024, CLUSTER_BEFORE_KEYFRAME_BYTES = 4096 };
enum { BLOCK_HEAD_BYTES = 4, LONGEST_HEADS_BYTES = 64 };

static size_t length_bytes(uint64_t length)
{
    size_t bytes = 1;
    while ((length + 1) >> (7 * bytes))
        bytes++;
    return bytes;
}

static size_t number_bytes(uint64_t number)
{
    size_t bytes = 1;
    while (bytes < 8 && number >> (8 * bytes))
        bytes++;
    return bytes;
}

static uint64_t block_bytes(const Sample *sample)
{
    uint64_t inside = (uint64_t)sample->bytes + BLOCK_HEAD_BYTES;
    return 1 + length_bytes(inside) + inside;
}

static int64_t milliseconds(const Reel *reel, const Sample *sample)
{
    return (sample->at_us - reel->zero_us + 500) / 1000;
}

/* The next sample in the order of the file and whether it is a sound; NULL after the last. */
static const Sample *next_sample(const Reel *reel, size_t *picture, size_t *sound, int *is_sound)
{
    const Sample *seen = *picture < reel->pictures.count
        ? (const Sample *)reel->pictures.at + *picture : NULL;
    const Sample *heard = *sound < reel->end_sound
        ? (const Sample *)reel->sounds.at + *sound : NULL;
    *is_sound = seen == NULL
        || (heard != NULL && milliseconds(reel, heard) < milliseconds(reel, seen));
    if (*is_sound) {
        *sound += heard != NULL;
        return heard;
    }
    ++*picture;
    return seen;
}

typedef struct {
    Reel *reel;
    PyObject *cues;
    Cluster *open;
    uint64_t blocks, bytes; /* `bytes`: of all clusters closed */
    int64_t picture_ms, sound_ms; /* where each track ends */
} Layout;

static uint64_t cluster_head_bytes(uint64_t inside) { return 4 + length_bytes(inside); }

static void close_cluster(Layout *layout)
{
    if (layout->open != NULL)
        layout->bytes += cluster_head_bytes(layout->open->bytes) + layout->open->bytes;
    layout->open = NULL;
}

static int lay_block(Layout *layout, const Sample *sample, int is_sound)
{
    int64_t at_ms = milliseconds(layout->reel, sample);
    if (layout->open != NULL) {
        int64_t into_ms = at_ms - layout->open->at_ms;
        if (into_ms != (int16_t)into_ms)
            close_cluster(layout);
    }
    int begins = layout->open == NULL;
    if (begins) {
        Cluster *cluster = one_more(&layout->reel->clusters);
        if (cluster == NULL)
            return -1;
        *cluster = (Cluster){at_ms, layout->blocks, 2 + number_bytes((uint64_t)at_ms)};
        layout->open = cluster;
    }
    int is_cued = is_sound ? layout->reel->pictures.count == 0 && begins : sample->is_keyframe;
    if (is_cued) {
        PyObject *cue = Py_BuildValue("LKK", (long long)at_ms, (unsigned long long)layout->bytes,
                                      (unsigned long long)layout->open->bytes);
        int failed = cue == NULL || PyList_Append(layout->cues, cue) < 0;
        Py_XDECREF(cue);
        if (failed)
            return -1;
    }
    int64_t over_ms = at_ms + (sample->duration_us + 500) / 1000;
    int64_t *end_ms = is_sound ? &layout->sound_ms : &layout->picture_ms;
    *end_ms = over_ms > *end_ms ? over_ms : *end_ms;
    layout->open->bytes += block_bytes(sample);
    layout->blocks++;
    return 0;
}

/* A sound waits for what comes next: if that opens a cluster with a keyframe, both belong to it. */
static int lay_all(Layout *layout)
{
    Reel *reel = layout->reel;
    const Sample *sample, *waiting = NULL;
    size_t picture = 0, sound = reel->first_sound;
    for (int is_sound; (sample = next_sample(reel, &picture, &sound, &is_sound)) != NULL;) {
        const Cluster *open = layout->open;
        if (open != NULL
            && (open->bytes > CLUSTER_BYTES
                || milliseconds(reel, sample) - open->at_ms > CLUSTER_MS
                || (!is_sound && sample->is_keyframe
                    && open->bytes > CLUSTER_BEFORE_KEYFRAME_BYTES)))
            close_cluster(layout);
        if (waiting != NULL && lay_block(layout, waiting, 1) < 0)
            return -1;
        waiting = is_sound ? sample : NULL;
        if (!is_sound && lay_block(layout, sample, 0) < 0)
            return -1;
    }
    if (waiting != NULL && lay_block(layout, waiting, 1) < 0)
        return -1;
    close_cluster(layout);
    return 0;
}

static uint64_t largest_of(const Row *samples)
{
    uint64_t largest = 0;
    for (size_t i = 0; i < samples->count; i++)
        if (((Sample *)samples->at)[i].bytes > largest)
            largest = ((Sample *)samples->at)[i].bytes;
    return largest;
}

/* lay_out(zero_us) -> (bytes of all clusters, least buffer for `fill`, pictures' end in ms, sounds'
   end, cues): each cue (ms, where its cluster begins after the first, place of its block in it). */
static PyObject *reel_lay_out(Reel *reel, PyObject *arguments)
{
    long long zero_us;
    if (!PyArg_ParseTuple(arguments, "L", &zero_us))
        return NULL;
    reel->zero_us = zero_us;
    reel->clusters.count = 0;
    reel->picture = reel->cluster = 0;
    reel->sound = reel->first_sound;
    reel->block = 0;
    uint64_t picture = largest_of(&reel->pictures), sound = largest_of(&reel->sounds);
    Layout layout = {.reel = reel, .cues = PyList_New(0)};
    if (layout.cues == NULL || lay_all(&layout) < 0) {
        Py_XDECREF(layout.cues);
        return NULL;
    }
    return Py_BuildValue("KKLLN", (unsigned long long)layout.bytes,
                         (unsigned long long)((picture > sound ? picture : sound)
                                              + LONGEST_HEADS_BYTES),
                         (long long)layout.picture_ms, (long long)layout.sound_ms, layout.cues);
}

static uint8_t *put_length(uint8_t *at, uint64_t length)
{
    size_t bytes = length_bytes(length);
    length |= (uint64_t)1 << (7 * bytes);
    for (size_t i = bytes; i-- > 0; at++)
        *at = (uint8_t)(length >> (8 * i));
    return at;
}

static uint8_t *put_cluster_head(uint8_t *at, const Cluster *cluster)
{
    memcpy(at, "\x1f\x43\xb6\x75", 4);
    at = put_length(at + 4, cluster->bytes);
    size_t bytes = number_bytes((uint64_t)cluster->at_ms);
    *at++ = 0xE7;
    *at++ = (uint8_t)(0x80 | bytes);
    for (size_t i = bytes; i-- > 0; at++)
        *at = (uint8_t)((uint64_t)cluster->at_ms >> (8 * i));
    return at;
}

/* The sample's bytes as its packets hold them; NULL with an exception if they are not there. */
static uint8_t *put_sample(const Reel *reel, uint8_t *at, const Sample *sample, int is_sound)
{
    if (sample->source == NO_SOURCE) {
        memcpy(at, SILENCE, SILENCE_BYTES);
        return at + SILENCE_BYTES;
    }
    const Source *source = ((Source **)reel->sources.at)[sample->source];
    const uint8_t *end = at + sample->bytes;
    for (uint64_t i = 0; i < sample->keys; i++) {
        Packet packet;
        Piece piece = {0};
        int found = packet_of(source, ((uint64_t *)source->keys.buf)[sample->first_key + i],
                              &packet);
        if (found < 0)
            return NULL;
        if (found == IS_MALFORMED || packet.bytes == 0)
            continue;
        if (!is_sound && !read_vp8(packet.payload, packet.bytes, &piece))
            continue;
        size_t bytes = packet.bytes - piece.begins;
        if (bytes > (size_t)(end - at))
            break;
        memcpy(at, packet.payload + piece.begins, bytes);
        at += bytes;
    }
    if (at != end) {
        unusual("a sample that is not what it was");
        return NULL;
    }
    return at;
}

/* fill(buffer) -> how many of its bytes are the file's next; 0 after the last. */
static PyObject *reel_fill(Reel *reel, PyObject *arguments)
{
    Py_buffer buffer;
    if (!PyArg_ParseTuple(arguments, "w*", &buffer))
        return NULL;
    uint8_t *begin = buffer.buf, *at = begin;
    const uint8_t *end = begin + buffer.len;
    const Cluster *clusters = reel->clusters.at;
    PyObject *answer = NULL;
    for (;;) {
        size_t picture = reel->picture, sound = reel->sound;
        int is_sound;
        const Sample *sample = next_sample(reel, &picture, &sound, &is_sound);
        if (sample == NULL || (uint64_t)(end - at) < sample->bytes + (uint64_t)LONGEST_HEADS_BYTES)
            break;
        if (reel->cluster < reel->clusters.count
            && clusters[reel->cluster].first_block == reel->block)
            at = put_cluster_head(at, &clusters[reel->cluster++]);
        int16_t into_ms = (int16_t)(milliseconds(reel, sample) - clusters[reel->cluster - 1].at_ms);
        *at++ = 0xA3;
        at = put_length(at, (uint64_t)sample->bytes + BLOCK_HEAD_BYTES);
        /* Tracks are numbered as they are described: pictures first, if there are any. */
        *at++ = (uint8_t)(0x80 | (is_sound && reel->pictures.count > 0 ? 2 : 1));
        *at++ = (uint8_t)((uint16_t)into_ms >> 8);
        *at++ = (uint8_t)into_ms;
        *at++ = sample->is_keyframe ? 0x80 : 0;
        if ((at = put_sample(reel, at, sample, is_sound)) == NULL)
            goto out;
        reel->picture = picture;
        reel->sound = sound;
        reel->block++;
    }
    answer = PyLong_FromSsize_t(at - begin);
out:
    PyBuffer_Release(&buffer);
    return answer;
}

static PyMethodDef reel_methods[] = {
    {"pictures", (PyCFunction)reel_pictures, METH_VARARGS, NULL},
    {"sounds", (PyCFunction)reel_sounds, METH_VARARGS, NULL},
    {"within", (PyCFunction)reel_within, METH_VARARGS, NULL},
    {"begins", (PyCFunction)reel_begins, METH_NOARGS, NULL},
    {"measured", (PyCFunction)reel_measured, METH_VARARGS, NULL},
    {"lay_out", (PyCFunction)reel_lay_out, METH_VARARGS, NULL},
    {"fill", (PyCFunction)reel_fill, METH_VARARGS, NULL},
    {"close", (PyCFunction)reel_close, METH_NOARGS, NULL},
    {NULL},
};

static PyTypeObject ReelType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "media._reel.Reel",
    .tp_basicsize = sizeof(Reel),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)reel_init,
    .tp_dealloc = (destructor)reel_dealloc,
    .tp_methods = reel_methods,
};

/* begin_writing(descriptor, offset, bytes): have the kernel take these to the disk from now on,
   so that the sync at the end finds little left. Only a wish: what it answers is of no interest. */
static PyObject *begin_writing(PyObject *module, PyObject *arguments)
{
    (void)module;
    int descriptor;
    long long offset, bytes;
    if (!PyArg_ParseTuple(arguments, "iLL", &descriptor, &offset, &bytes))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    (void)!sync_file_range(descriptor, offset, bytes, SYNC_FILE_RANGE_WRITE);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"survey", survey, METH_VARARGS, NULL},
    {"walk", walk, METH_VARARGS, NULL},
    {"begin_writing", begin_writing, METH_VARARGS, NULL},
    {NULL},
};
#endif

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "media._reel", .m_size = -1,
#ifdef __x86_64__
    .m_methods = functions,
#endif
};

PyMODINIT_FUNC PyInit__reel(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2")) {
        if (PyType_Ready(&TrackType) < 0 || PyType_Ready(&ReelType) < 0)
            return NULL;
        PyObject *module = PyModule_Create(&definition);
        Unusual = PyErr_NewException("media._reel.Unusual", PyExc_ValueError, NULL);
        if (module == NULL || Unusual == NULL
            || PyModule_AddObjectRef(module, "Unusual", Unusual) < 0
            || PyModule_AddObjectRef(module, "Track", (PyObject *)&TrackType) < 0
            || PyModule_AddObjectRef(module, "Reel", (PyObject *)&ReelType) < 0)
            return NULL;
        return module;
    }
#endif
    (void)definition;
    PyErr_SetString(PyExc_ImportError, "this processor has no CRC32C instruction");
    return NULL;
}
