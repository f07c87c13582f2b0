/* The common case of the hot loop, the wait for it, and the journal's records, in C.

   media/router.py is the truth: what a packet goes through, in what order and why, is written there.
   This file does the same to the same tables (media/tables.py) for the packets that make up nearly
   all of a call: known address, known SSRC, the very next sequence number, the usual payload type,
   the gate open. Whatever is different in any way is left untouched and returned to Python, so a
   special case exists once. It reads and writes the very objects that Python does, through the
   places of their slots, so nothing is kept twice and nothing needs to be brought into line.

   Why at all: an interpreter that is woken a thousand times a second finds the processor's caches
   cold each time, and then a hundred lines of Python cost three to four times what they cost in a
   loop (docs/decisions/0009-the-common-case-in-c.md). Built by `make setup` where there is a
   compiler; without it everything works as before. Every test of the router runs through both
   (tests/unit/media/test_router.py), and seeded storms of packets compare all tables after each
   one (tests/unit/media/test_fastlane.py).

   The interpreter is held wherever the tables are: nothing blocks there, and nobody else walks them.
   Only while `relay` waits it is given up (docs/decisions/0016-relayed-while-waiting.md). */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "_bytes.h"

enum { ERROR = -1, NOT_MINE = 0, DONE = 1 };

/* As in media/router.py, rtp.py and srtp.py. */
enum { HEADER_BYTES = 12, EXTENSION_HEAD_AT = 12, EXTENSION_HEAD_BYTES = 5, STAMP_BYTES = 3 };
static const int64_t SECOND_NS = 1000000000;
/* As in media/journal.py. */
enum { RECORD_HEAD_BYTES = 12, CRC_BYTES = 4 };
/* As in media/socket.py. */
enum { BATCHES_PER_TURN = 16 };

typedef int (*srtp_call)(void *context, void *packet, int *length);

/* -- Slots: where Python keeps what -------------------------------------------------------------- */

#define LEG_SLOTS(S) \
    S(inbound) S(outbound) S(address) S(is_connected) S(numbers) S(sources) S(tap) \
    S(last_packet_ns) S(packets_in) S(bytes_in) S(rejected)
#define SOURCE_SLOTS(S) \
    S(publication) S(payload_type) S(clock_rate) S(next_seq) S(advanced) S(received) \
    S(last_timestamp) S(transit) S(jitter) S(is_anchored) S(seq_offset) S(timestamp_offset) \
    S(track_index) S(extension_id) S(extension_head) S(extension_at)
#define PUBLICATION_SLOTS(S) \
    S(source) S(is_open) S(is_speaking) S(loud_packets) S(loud_until_ns) S(cache) S(cache_mask) S(targets) \
    S(translated) S(next_seq) S(next_timestamp) S(last_arrival_ns)
#define INTAKE_SLOTS(S) S(accepted_bytes) S(is_open) S(limit_bytes) S(pending) S(tracks)
#define SUBSCRIPTION_SLOTS(S) S(leg) S(seq_offset) S(ssrc) S(rtx_ssrc) S(packets) S(octets)
#define SESSION_SLOTS(S) S(handle)

#define DECLARE(name) Py_ssize_t name;
static struct { LEG_SLOTS(DECLARE) } leg_at;
static struct { SOURCE_SLOTS(DECLARE) } source_at;
static struct { PUBLICATION_SLOTS(DECLARE) } publication_at;
static struct { SUBSCRIPTION_SLOTS(DECLARE) } subscription_at;
static struct { SESSION_SLOTS(DECLARE) } session_at;
static struct { INTAKE_SLOTS(DECLARE) } intake_at;

/* Where instances of `type` keep `name`; -1 with an exception if that is no slot. */
static Py_ssize_t slot_of(PyObject *type, const char *name)
{
    PyObject *found = PyObject_GetAttrString(type, name);
    if (found == NULL)
        return -1;
    Py_ssize_t at = -1;
    if (Py_IS_TYPE(found, &PyMemberDescr_Type)
        && ((PyMemberDescrObject *)found)->d_member->type == T_OBJECT_EX)
        at = ((PyMemberDescrObject *)found)->d_member->offset;
    else
        PyErr_Format(PyExc_TypeError, "%R.%s is not a slot", type, name);
    Py_DECREF(found);
    return at;
}

#define LEARN_LEG(name) if ((leg_at.name = slot_of(leg, #name)) < 0) return -1;
#define LEARN_SOURCE(name) if ((source_at.name = slot_of(source, #name)) < 0) return -1;
#define LEARN_PUBLICATION(name) \
    if ((publication_at.name = slot_of(publication, #name)) < 0) return -1;
#define LEARN_SUBSCRIPTION(name) \
    if ((subscription_at.name = slot_of(subscription, #name)) < 0) return -1;
#define LEARN_SESSION(name) if ((session_at.name = slot_of(session, #name)) < 0) return -1;
#define LEARN_INTAKE(name) if ((intake_at.name = slot_of(intake, #name)) < 0) return -1;

static int learn(PyObject *leg, PyObject *source, PyObject *publication, PyObject *subscription,
                 PyObject *session, PyObject *intake)
{
    LEG_SLOTS(LEARN_LEG)
    SOURCE_SLOTS(LEARN_SOURCE)
    PUBLICATION_SLOTS(LEARN_PUBLICATION)
    SUBSCRIPTION_SLOTS(LEARN_SUBSCRIPTION)
    SESSION_SLOTS(LEARN_SESSION)
    INTAKE_SLOTS(LEARN_INTAKE)
    return 0;
}

/* Types that do not fit change nothing: lanes that live already go by what was learnt before. */
static int learn_slots(PyObject *leg, PyObject *source, PyObject *publication,
                       PyObject *subscription, PyObject *session, PyObject *intake)
{
    __typeof__(leg_at) leg_was = leg_at;
    __typeof__(source_at) source_was = source_at;
    __typeof__(publication_at) publication_was = publication_at;
    __typeof__(subscription_at) subscription_was = subscription_at;
    __typeof__(session_at) session_was = session_at;
    __typeof__(intake_at) intake_was = intake_at;
    if (learn(leg, source, publication, subscription, session, intake) == 0)
        return 0;
    leg_at = leg_was;
    source_at = source_was;
    publication_at = publication_was;
    subscription_at = subscription_was;
    session_at = session_was;
    intake_at = intake_was;
    return -1;
}

/* A borrowed reference. `leg_at.tap` of a leg is AT(leg, leg_at.tap). */
#define AT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

static inline int64_t number(PyObject *object, Py_ssize_t offset)
{
    return PyLong_AsLongLong(AT(object, offset));
}

static inline int put(PyObject *object, Py_ssize_t offset, int64_t value)
{
    PyObject *made = PyLong_FromLongLong(value);
    if (made == NULL)
        return -1;
    Py_XSETREF(AT(object, offset), made);
    return 0;
}

static inline int add(PyObject *object, Py_ssize_t offset, int64_t value)
{
    return put(object, offset, number(object, offset) + value);
}

/* (first, second, packet); takes over the first two, which may be NULL after a failure. */
static inline PyObject *triple(PyObject *first, PyObject *second, PyObject *packet)
{
    PyObject *made = first == NULL || second == NULL ? NULL : PyTuple_New(3);
    if (made == NULL) {
        Py_XDECREF(first);
        Py_XDECREF(second);
        return NULL;
    }
    PyTuple_SET_ITEM(made, 0, first);
    PyTuple_SET_ITEM(made, 1, second);
    PyTuple_SET_ITEM(made, 2, Py_NewRef(packet));
    return made;
}

/* -- The lane ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *router;      /* counts what could not be encrypted, and hears who speaks */
    PyObject *outbox;      /* its counter `posted` is ours while a batch is in work */
    PyObject *intake;      /* the class of what taps keep packets in */
    srtp_call unprotect, protect;
    struct iovec *slots;   /* of the outbox: where a packet is built, and its length */
    uint8_t *names;        /* of the outbox: whom each goes to */
    int name_bytes, slot_count;
    int audio_level_extension, loud_level, loud_packets;
    long long speech_hangover_ns;
    int posted;
    int is_ours;           /* `posted` is ahead of the outbox's */
    int has_called;        /* something in Python, since `relay` was called */
    /* What `listen` was told, for `relay`: the socket, its receive slots, the outbox's headers. */
    int fd;
    struct mmsghdr *incoming, *outgoing;
    int incoming_slots;
    unsigned most_bytes;
    PyObject *by_address;
    unsigned long long dropped; /* what the kernel did not take from `relay` */
} Lane;

static PyObject *NAME_posted, *NAME_flush, *NAME_intake, *NAME_rtp, *NAME_hear, *NAME_unprotectable;

static int take_over(Lane *lane)
{
    PyObject *posted = PyObject_GetAttr(lane->outbox, NAME_posted);
    if (posted == NULL)
        return -1;
    lane->posted = (int)PyLong_AsLong(posted);
    lane->is_ours = 1;
    Py_DECREF(posted);
    return 0;
}

static int hand_back(Lane *lane)
{
    lane->is_ours = 0;
    PyObject *posted = PyLong_FromLong(lane->posted);
    int failed = posted == NULL || PyObject_SetAttr(lane->outbox, NAME_posted, posted) < 0;
    Py_XDECREF(posted);
    return failed ? -1 : 0;
}

/* An exception goes up: what has been encrypted and counted so far is sent all the same. */
static PyObject *give_up(Lane *lane)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (lane->is_ours && hand_back(lane) < 0)
        PyErr_Clear();
    PyErr_Restore(type, value, traceback);
    return NULL;
}

/* The outbox is full: let everything go. */
static int flush(Lane *lane)
{
    lane->has_called = 1;
    if (hand_back(lane) < 0)
        return -1;
    PyObject *nothing = PyObject_CallMethodNoArgs(lane->outbox, NAME_flush);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : take_over(lane);
}

static int count_unprotectable(Lane *lane)
{
    PyObject *before = PyObject_GetAttr(lane->router, NAME_unprotectable);
    if (before == NULL)
        return -1;
    PyObject *after = PyLong_FromLongLong(PyLong_AsLongLong(before) + 1);
    Py_DECREF(before);
    int failed = after == NULL || PyObject_SetAttr(lane->router, NAME_unprotectable, after) < 0;
    Py_XDECREF(after);
    return failed ? -1 : 0;
}

/* Call `method` of `object`. */
static int call(Lane *lane, PyObject *object, PyObject *method, PyObject *first, int64_t second,
                int64_t third, int order)
{
    lane->has_called = 1;
    PyObject *a = PyLong_FromLongLong(second), *b = PyLong_FromLongLong(third), *result = NULL;
    if (a != NULL && b != NULL) {
        /* order 0: (first, second, third); 1: (second, first, third) */
        PyObject *arguments[] = {object, order ? a : first, order ? first : a, b};
        result = PyObject_VectorcallMethod(method, arguments, 4, NULL);
    }
    Py_XDECREF(a);
    Py_XDECREF(b);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* taps.Intake.put: 1 if the packet waits there now, 0 if this is another case, -1 on failure. */
static int put_aside(PyObject *intake, int64_t track, PyObject *packet, int64_t arrival_ns)
{
    int64_t accepted = number(intake, intake_at.accepted_bytes) + PyBytes_GET_SIZE(packet)
        + RECORD_HEAD_BYTES + CRC_BYTES;
    if (AT(intake, intake_at.is_open) != Py_True || track >= number(intake, intake_at.tracks)
        || accepted > number(intake, intake_at.limit_bytes))
        return 0;
    PyObject *kept = triple(PyLong_FromLongLong(track), PyLong_FromLongLong(arrival_ns), packet);
    if (kept == NULL)
        return -1;
    int failed = PyList_Append(AT(intake, intake_at.pending), kept) < 0
        || put(intake, intake_at.accepted_bytes, accepted) < 0;
    Py_DECREF(kept);
    return failed ? -1 : 1;
}

/* Step 3's second half: into the record, without a call where it can be. */
static int keep_for_record(Lane *lane, PyObject *tap, int64_t track, PyObject *packet,
                           int64_t arrival_ns)
{
    PyObject *intake = PyObject_GetAttr(tap, NAME_intake);
    if (intake == NULL)
        return -1;
    int done = (PyObject *)Py_TYPE(intake) == lane->intake
        ? put_aside(intake, track, packet, arrival_ns) : 0;
    Py_DECREF(intake);
    return done ? done : call(lane, tap, NAME_rtp, packet, track, arrival_ns, 1);
}

/* Step 5 of the router: one rewritten, encrypted copy per receiver. */
static int send_copies(Lane *lane, PyObject *targets, const uint8_t *packet, Py_ssize_t length,
                       uint16_t out_seq, uint32_t out_timestamp, Py_ssize_t stamp_at,
                       uint32_t stamp)
{
    Py_ssize_t count = PyTuple_GET_SIZE(targets);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *target = PyTuple_GET_ITEM(targets, i);
        PyObject *leg = AT(target, subscription_at.leg);
        PyObject *address = AT(leg, leg_at.address), *session = AT(leg, leg_at.outbound);
        if (address == Py_None || session == Py_None
            || PyBytes_GET_SIZE(address) != lane->name_bytes)
            continue;
        if (lane->posted == lane->slot_count && flush(lane) < 0)
            return -1;
        uint8_t *copy = lane->slots[lane->posted].iov_base;
        memcpy(copy, packet, (size_t)length);
        write_16(copy + 2, (uint16_t)(out_seq + number(target, subscription_at.seq_offset)));
        write_32(copy + 4, out_timestamp);
        write_32(copy + 8, (uint32_t)number(target, subscription_at.ssrc));
        if (stamp_at && number(target, subscription_at.rtx_ssrc) != 0) {
            /* never on packets that may be repeated as they are */
            copy[stamp_at] = (uint8_t)(stamp >> 16);
            write_16(copy + stamp_at + 1, (uint16_t)stamp);
        }
        int size = (int)length;
        void *context = (void *)(uintptr_t)number(session, session_at.handle);
        if (lane->protect(context, copy, &size)) {
            if (count_unprotectable(lane) < 0)
                return -1;
            continue;
        }
        lane->slots[lane->posted].iov_len = (size_t)size;
        memcpy(lane->names + (size_t)lane->posted * (size_t)lane->name_bytes,
               PyBytes_AS_STRING(address), (size_t)lane->name_bytes);
        lane->posted++;
        if (add(target, subscription_at.packets, 1) < 0
            || add(target, subscription_at.octets, length) < 0)
            return -1;
    }
    return 0;
}

/* The router's hear. Python is called when it is to be told that somebody begins to speak, or has
   ended; who is told may want to send something. */
static int hear(Lane *lane, PyObject *source, PyObject *publication, int level, int64_t arrival_ns)
{
    int is_speaking = AT(publication, publication_at.is_speaking) == Py_True;
    int64_t loud_packets = number(publication, publication_at.loud_packets);
    if (level < lane->loud_level) {
        if (is_speaking || loud_packets + 1 < lane->loud_packets)
            return put(publication, publication_at.loud_packets, loud_packets + 1) < 0
                || put(publication, publication_at.loud_until_ns,
                       arrival_ns + lane->speech_hangover_ns) < 0 ? -1 : 0;
    } else if (arrival_ns <= number(publication, publication_at.loud_until_ns)) {
        return 0;
    } else if (!is_speaking) {
        return loud_packets == 0 ? 0 : put(publication, publication_at.loud_packets, 0);
    }
    if (hand_back(lane) < 0 || call(lane, lane->router, NAME_hear, source, level, arrival_ns, 0) < 0)
        return -1;
    return take_over(lane);
}

/* Steps 1 to 5 of the router for a packet that has been looked at and decrypted. */
static int route(Lane *lane, PyObject *leg, PyObject *source, PyObject *publication,
                 PyObject *packet, Py_ssize_t extension_at, int64_t arrival_ns)
{
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(packet);
    Py_ssize_t length = PyBytes_GET_SIZE(packet);
    uint16_t seq = read_16(bytes + 2);
    uint32_t timestamp = read_32(bytes + 4);

    /* 1. Numbers: in order, or it would not be here. */
    if (put(source, source_at.next_seq, (uint16_t)(seq + 1)) < 0
        || add(source, source_at.advanced, 1) < 0 || add(source, source_at.received, 1) < 0)
        return -1;
    if (timestamp != number(source, source_at.last_timestamp)) { /* jitter, RFC 3550 A.8 */
        int64_t rate = number(source, source_at.clock_rate);
        int64_t transit = (int64_t)((__int128)arrival_ns * rate / SECOND_NS) - timestamp;
        uint32_t change = (uint32_t)(transit - number(source, source_at.transit));
        double step = change >= 0x80000000u ? (double)(0x100000000 - change) : (double)change;
        double jitter = PyFloat_AsDouble(AT(source, source_at.jitter));
        PyObject *smoothed = PyFloat_FromDouble(jitter + (step - jitter) / 16);
        if (smoothed == NULL)
            return -1;
        Py_XSETREF(AT(source, source_at.jitter), smoothed);
        if (put(source, source_at.last_timestamp, timestamp) < 0
            || put(source, source_at.transit, transit) < 0)
            return -1;
    }

    /* 2. The gate is open. */
    uint16_t out_seq = (uint16_t)(seq + number(source, source_at.seq_offset));
    uint32_t out_timestamp = (uint32_t)(timestamp + number(source, source_at.timestamp_offset));
    if (put(publication, publication_at.next_seq, (uint16_t)(out_seq + 1)) < 0
        || put(publication, publication_at.next_timestamp, out_timestamp) < 0
        || put(publication, publication_at.last_arrival_ns, arrival_ns) < 0)
        return -1;

    /* 3. Keep it: for receivers that will ask again, and for the record. */
    PyObject *kept =
        triple(PyLong_FromLong(out_seq), PyLong_FromUnsignedLong(out_timestamp), packet);
    if (kept == NULL)
        return -1;
    Py_ssize_t place = out_seq & number(publication, publication_at.cache_mask);
    if (PyList_SetItem(AT(publication, publication_at.cache), place, kept) < 0)
        return -1;
    int64_t track = number(source, source_at.track_index);
    PyObject *tap = AT(leg, leg_at.tap);
    if (track >= 0 && tap != Py_None && keep_for_record(lane, tap, track, packet, arrival_ns) < 0)
        return -1;

    /* 4. Audio level is read, abs-send-time is rewritten. */
    Py_ssize_t stamp_at = 0;
    uint32_t stamp = 0;
    int is_level = number(source, source_at.extension_id) == lane->audio_level_extension;
    if (extension_at == 0 || extension_at + (is_level ? 1 : STAMP_BYTES) > length) {
        /* nothing that we use */
    } else if (is_level) {
        if (hear(lane, source, publication, bytes[extension_at] & 0x7F, arrival_ns) < 0)
            return -1;
    } else {
        stamp_at = extension_at;
        stamp = (uint32_t)(((__int128)arrival_ns << 18) / SECOND_NS) & 0xFFFFFF;
    }

    /* 5. The copies. What was just called may have changed whom they go to. */
    PyObject *targets = Py_NewRef(AT(publication, publication_at.targets));
    int failed = send_copies(lane, targets, bytes, length, out_seq, out_timestamp, stamp_at, stamp);
    Py_DECREF(targets);
    return failed;
}

/* One SRTP packet from `leg`: done with, or not ours and untouched. */
static int forward(Lane *lane, PyObject *leg, uint8_t *data, int *length, int64_t arrival_ns)
{
    PyObject *session = AT(leg, leg_at.inbound);
    if (*length < HEADER_BYTES || AT(leg, leg_at.is_connected) != Py_True || session == Py_None
        || AT(leg, leg_at.numbers) != Py_None)
        return NOT_MINE;

    PyObject *ssrc = PyLong_FromUnsignedLong(read_32(data + 8));
    if (ssrc == NULL)
        return ERROR;
    PyObject *source = PyDict_GetItemWithError(AT(leg, leg_at.sources), ssrc);
    Py_DECREF(ssrc);
    if (source == NULL)
        return PyErr_Occurred() ? ERROR : NOT_MINE;
    PyObject *publication = AT(source, source_at.publication);
    if (read_16(data + 2) != number(source, source_at.next_seq)
        || (data[1] & 0x7F) != number(source, source_at.payload_type)
        || AT(source, source_at.is_anchored) != Py_True
        || AT(publication, publication_at.is_open) != Py_True
        || AT(publication, publication_at.source) != source
        || PyTuple_GET_SIZE(AT(publication, publication_at.translated)) != 0)
        return NOT_MINE;
    Py_ssize_t extension_at = 0;
    if (data[0] & 0x10) { /* header extensions: laid out as last time, or they are looked for */
        PyObject *head = AT(source, source_at.extension_head);
        if (data[0] & 0x0F || *length < EXTENSION_HEAD_AT + EXTENSION_HEAD_BYTES
            || PyBytes_GET_SIZE(head) != EXTENSION_HEAD_BYTES
            || memcmp(data + EXTENSION_HEAD_AT, PyBytes_AS_STRING(head), EXTENSION_HEAD_BYTES))
            return NOT_MINE;
        extension_at = (Py_ssize_t)number(source, source_at.extension_at);
    }

    /* Nothing has been changed so far, and nothing believed: all that was read was the header. */
    if (lane->unprotect((void *)(uintptr_t)number(session, session_at.handle), data, length))
        return add(leg, leg_at.rejected, 1) < 0 ? ERROR : DONE; /* forged, damaged, or replayed */

    PyObject *packet = PyBytes_FromStringAndSize((const char *)data, *length);
    if (packet == NULL)
        return ERROR;
    Py_INCREF(leg);
    Py_INCREF(source);
    Py_INCREF(publication);
    int failed = put(leg, leg_at.last_packet_ns, arrival_ns) < 0
        || add(leg, leg_at.packets_in, 1) < 0 || add(leg, leg_at.bytes_in, *length) < 0
        || route(lane, leg, source, publication, packet, extension_at, arrival_ns) < 0;
    Py_DECREF(publication);
    Py_DECREF(source);
    Py_DECREF(leg);
    Py_DECREF(packet);
    return failed ? ERROR : DONE;
}

/* Datagrams `at` to `end` of `messages`, in order: the first that is not ours, or `end`; or ERROR. */
static Py_ssize_t forward_all(Lane *lane, struct mmsghdr *messages, Py_ssize_t at, Py_ssize_t end,
                              unsigned most_bytes, PyObject *by_address, int64_t arrival_ns)
{
    for (; at < end; at++) {
        struct mmsghdr *message = &messages[at];
        uint8_t *data = message->msg_hdr.msg_iov->iov_base;
        if (message->msg_len < HEADER_BYTES || message->msg_len >= most_bytes
            || data[0] < 128 || data[0] >= 192    /* not RTP or RTCP, RFC 7983 */
            || (data[1] >= 192 && data[1] < 224)) /* RTCP, RFC 5761 */
            break;
        PyObject *address =
            PyBytes_FromStringAndSize(message->msg_hdr.msg_name, lane->name_bytes);
        if (address == NULL)
            return ERROR;
        PyObject *leg = PyDict_GetItemWithError(by_address, address);
        Py_DECREF(address);
        if (leg == NULL && PyErr_Occurred())
            return ERROR;
        if (leg == NULL)
            break;
        int outcome = forward(lane, leg, data, (int *)&message->msg_len, arrival_ns);
        if (outcome == ERROR)
            return ERROR;
        if (outcome == NOT_MINE)
            break;
    }
    return at;
}

/* -- The socket's two calls ---------------------------------------------------------------------- */

/* socket.take_in: as many datagrams as have come, at most `most`; 0 if none. */
static PyObject *take_in(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "take_in(fd, messages, most)");
    int fd = (int)PyLong_AsLong(arguments[0]);
    struct mmsghdr *messages = PyLong_AsVoidPtr(arguments[1]);
    unsigned most = (unsigned)PyLong_AsLong(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    int came = recvmmsg(fd, messages, most, MSG_DONTWAIT, NULL);
    return PyLong_FromLong(came < 0 ? 0 : came);
}

/* A picture's packets go to one receiver one after the other, all of one length but the last. The
   kernel takes such a run as one and cuts it where it leaves the machine (UDP_SEGMENT, Linux 4.18):
   its way through the stack, which is most of what a packet costs, is gone once for all. */
enum { RUN_MOST = 64, RUN_BYTES = 64000 };

typedef union {
    char bytes[CMSG_SPACE(sizeof(uint16_t))];
    struct cmsghdr aligned;
} SegmentSize;

/* How many of `messages` make one run. */
static unsigned run_length(const struct mmsghdr *messages, unsigned count)
{
    const struct msghdr *first = &messages[0].msg_hdr;
    size_t size = first->msg_iov->iov_len, total = size;
    unsigned run = 1;
    while (run < count && run < RUN_MOST) {
        const struct msghdr *next = &messages[run].msg_hdr;
        size_t length = next->msg_iov->iov_len;
        if (length == 0 || length > size || total + length > RUN_BYTES
            || next->msg_namelen != first->msg_namelen
            || memcmp(next->msg_name, first->msg_name, first->msg_namelen))
            break;
        total += length;
        run++;
        if (length < size)
            break; /* only the last may be shorter */
    }
    return run;
}

/* The headers of `runs` out of those of single datagrams, whose iovecs lie one behind the other. */
static unsigned in_runs(const struct mmsghdr *messages, unsigned count, struct mmsghdr *runs,
                        SegmentSize *sizes)
{
    unsigned made = 0;
    for (unsigned at = 0; at < count; made++) {
        unsigned length = run_length(messages + at, count - at);
        runs[made] = messages[at];
        if (length > 1) {
            struct msghdr *run = &runs[made].msg_hdr;
            run->msg_iovlen = length;
            run->msg_control = sizes[made].bytes;
            run->msg_controllen = sizeof sizes[made].bytes;
            struct cmsghdr *option = CMSG_FIRSTHDR(run);
            option->cmsg_level = SOL_UDP;
            option->cmsg_type = UDP_SEGMENT;
            option->cmsg_len = CMSG_LEN(sizeof(uint16_t));
            uint16_t size = (uint16_t)run->msg_iov->iov_len;
            memcpy(CMSG_DATA(option), &size, sizeof size);
        }
        at += length;
    }
    return made;
}

/* socket.hand_over for these, one by one: how many were dropped. */
static unsigned hand_over_singly(int fd, struct mmsghdr *messages, unsigned count, int *is_full)
{
    unsigned dropped = 0;
    for (unsigned done = 0; done < count;) {
        int sent = sendmmsg(fd, messages + done, count - done, MSG_DONTWAIT);
        if (sent > 0) {
            done += (unsigned)sent;
        } else if (errno == EAGAIN || errno == ENOBUFS) {
            *is_full = 1;
            return dropped + count - done;
        } else {
            dropped++;
            done++;
        }
    }
    return dropped;
}

/* How many of `messages` the kernel did not take. */
static unsigned hand_over_all(int fd, struct mmsghdr *messages, unsigned left)
{
    unsigned dropped = 0;
    int is_full = 0;
    while (left > 0 && !is_full) {
        struct mmsghdr runs[RUN_MOST];
        SegmentSize sizes[RUN_MOST];
        unsigned now = left < RUN_MOST ? left : RUN_MOST;
        unsigned made = in_runs(messages, now, runs, sizes);
        int sent = sendmmsg(fd, runs, made, MSG_DONTWAIT);
        unsigned gone = 0;
        for (int i = 0; i < sent; i++)
            gone += (unsigned)runs[i].msg_hdr.msg_iovlen;
        if (sent < 0) {
            /* Full, or this receiver cannot be reached, or its way takes no runs (a small MTU, an
               old kernel): each by itself tells which. */
            gone = (unsigned)runs[0].msg_hdr.msg_iovlen;
            dropped += hand_over_singly(fd, messages, gone, &is_full);
        }
        messages += gone;
        left -= gone;
    }
    return dropped + left;
}

/* socket.hand_over. */
static PyObject *hand_over(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "hand_over(fd, messages, count)");
    int fd = (int)PyLong_AsLong(arguments[0]);
    struct mmsghdr *messages = PyLong_AsVoidPtr(arguments[1]);
    unsigned left = (unsigned)PyLong_AsLong(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromUnsignedLong(hand_over_all(fd, messages, left));
}

/* -- What Python calls --------------------------------------------------------------------------- */

static PyObject *lane_forward(Lane *lane, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 4)
        return PyErr_Format(PyExc_TypeError, "forward(leg, packet, length, arrival_ns)");
    uint8_t *data = PyLong_AsVoidPtr(arguments[1]);
    int *length = PyLong_AsVoidPtr(arguments[2]);
    int64_t arrival_ns = PyLong_AsLongLong(arguments[3]);
    if (PyErr_Occurred() || take_over(lane) < 0)
        return NULL;
    int outcome = forward(lane, arguments[0], data, length, arrival_ns);
    if (outcome == ERROR)
        return give_up(lane);
    return hand_back(lane) < 0 ? NULL : PyBool_FromLong(outcome == DONE);
}

static PyObject *lane_forward_batch(Lane *lane, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 6)
        return PyErr_Format(PyExc_TypeError, "forward_batch(messages, at, end, most_bytes, "
                                             "by_address, arrival_ns)");
    struct mmsghdr *messages = PyLong_AsVoidPtr(arguments[0]);
    Py_ssize_t at = PyLong_AsSsize_t(arguments[1]), end = PyLong_AsSsize_t(arguments[2]);
    unsigned most_bytes = (unsigned)PyLong_AsLong(arguments[3]);
    PyObject *by_address = arguments[4];
    int64_t arrival_ns = PyLong_AsLongLong(arguments[5]);
    if (PyErr_Occurred() || take_over(lane) < 0)
        return NULL;
    at = forward_all(lane, messages, at, end, most_bytes, by_address, arrival_ns);
    if (at < 0)
        return give_up(lane);
    return hand_back(lane) < 0 ? NULL : PyLong_FromSsize_t(at);
}

static int64_t monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* Say once whose datagrams `relay` forwards, and by which of the outbox's headers. */
static PyObject *lane_listen(Lane *lane, PyObject *arguments, PyObject *names)
{
    static char *known[] = {"fd", "incoming", "slots", "outgoing", "most_bytes", "by_address", NULL};
    unsigned long long incoming, outgoing;
    PyObject *by_address;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "iKiKIO!", known, &lane->fd, &incoming,
                                     &lane->incoming_slots, &outgoing, &lane->most_bytes,
                                     &PyDict_Type, &by_address))
        return NULL;
    lane->incoming = (struct mmsghdr *)(uintptr_t)incoming;
    lane->outgoing = (struct mmsghdr *)(uintptr_t)outgoing;
    Py_XSETREF(lane->by_address, Py_NewRef(by_address));
    Py_RETURN_NONE;
}

/* Everything that has come. 0: there is no more; 1: Python was called and may have left something
   to the loop, or it is others' turn. With `left`: a batch that Python has to go on with. */
static int relay_what_came(Lane *lane, int64_t trusted_until_ns, PyObject **left)
{
    for (int batches = 0; batches < BATCHES_PER_TURN; batches++) {
        int came = recvmmsg(lane->fd, lane->incoming, (unsigned)lane->incoming_slots, MSG_DONTWAIT,
                            NULL);
        if (came <= 0)
            return came < 0 && errno != EAGAIN; /* a socket that can only fail is not waited for */
        int64_t arrival_ns = monotonic_ns();
        Py_ssize_t at = 0;
        if (arrival_ns <= trusted_until_ns) {
            at = forward_all(lane, lane->incoming, 0, came, lane->most_bytes, lane->by_address,
                             arrival_ns);
            if (at < 0)
                return ERROR;
        }
        if (at < came) {
            *left = Py_BuildValue("inL", came, at, (long long)arrival_ns);
            return *left == NULL ? ERROR : 1;
        }
        unsigned posted = (unsigned)lane->posted;
        lane->posted = 0;
        if (posted > 0)
            lane->dropped += hand_over_all(lane->fd, lane->outgoing, posted);
        if (lane->has_called)
            return 1;
        if (came < lane->incoming_slots)
            return 0;
    }
    return 1;
}

/* Forward what comes, in the wait for it: until `others` can be read, the time is up, or Python has
   something to do. Between two packets of the common case no line of Python runs. */
static PyObject *lane_relay(Lane *lane, PyObject *const *arguments, Py_ssize_t count)
{
    if (count != 3)
        return PyErr_Format(PyExc_TypeError, "relay(others, timeout_ns, trusted_until_ns)");
    int others = (int)PyLong_AsLong(arguments[0]);
    int64_t timeout_ns = PyLong_AsLongLong(arguments[1]);
    int64_t trusted_until_ns = PyLong_AsLongLong(arguments[2]);
    if (PyErr_Occurred())
        return NULL;
    if (lane->by_address == NULL)
        return PyErr_Format(PyExc_RuntimeError, "listen() first");
    struct pollfd ready[2] = {{.fd = lane->fd, .events = POLLIN}, {.fd = others, .events = POLLIN}};
    int64_t left_ns = timeout_ns, until_ns = timeout_ns < 0 ? 0 : monotonic_ns() + timeout_ns;
    PyObject *left = NULL;
    int outcome;
    lane->has_called = 0;
    do {
        struct timespec left_time = {left_ns / SECOND_NS, left_ns % SECOND_NS};
        int found;
        Py_BEGIN_ALLOW_THREADS
        found = ppoll(ready, 2, timeout_ns < 0 ? NULL : &left_time, NULL);
        Py_END_ALLOW_THREADS
        if (found <= 0 || !ready[0].revents) /* time is up, a signal came, or something for others */
            break;
        if (take_over(lane) < 0)
            return NULL;
        outcome = relay_what_came(lane, trusted_until_ns, &left);
        if (outcome == ERROR)
            return give_up(lane);
        if (hand_back(lane) < 0) {
            Py_XDECREF(left);
            return NULL;
        }
        if (timeout_ns >= 0 && (left_ns = until_ns - monotonic_ns()) <= 0)
            break;
    } while (outcome == 0 && !ready[1].revents);
    return left == NULL ? Py_NewRef(Py_None) : left;
}

static int lane_init(Lane *lane, PyObject *arguments, PyObject *names)
{
    static char *known[] = {"tables", "router", "outbox", "unprotect", "protect", "slots", "names",
                            "name_bytes", "slot_count", "audio_level_extension", "loud_level",
                            "loud_packets", "speech_hangover_ns", NULL};
    PyObject *leg, *source, *publication, *subscription, *session, *intake, *router, *outbox;
    unsigned long long unprotect, protect, slots, slot_names;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, names, "(OOOOOO)OOKKKKiiiiiL", known, &leg, &source, &publication,
            &subscription, &session, &intake, &router, &outbox, &unprotect, &protect, &slots, &slot_names,
            &lane->name_bytes, &lane->slot_count, &lane->audio_level_extension, &lane->loud_level,
            &lane->loud_packets, &lane->speech_hangover_ns))
        return -1;
    if (learn_slots(leg, source, publication, subscription, session, intake) < 0)
        return -1;
    Py_XSETREF(lane->router, Py_NewRef(router));
    Py_XSETREF(lane->outbox, Py_NewRef(outbox));
    Py_XSETREF(lane->intake, Py_NewRef(intake));
    lane->unprotect = (srtp_call)(uintptr_t)unprotect;
    lane->protect = (srtp_call)(uintptr_t)protect;
    lane->slots = (struct iovec *)(uintptr_t)slots;
    lane->names = (uint8_t *)(uintptr_t)slot_names;
    return 0;
}

static int lane_traverse(Lane *lane, visitproc visit, void *arg)
{
    Py_VISIT(lane->router);
    Py_VISIT(lane->outbox);
    Py_VISIT(lane->intake);
    Py_VISIT(lane->by_address);
    return 0;
}

static int lane_clear(Lane *lane)
{
    Py_CLEAR(lane->router);
    Py_CLEAR(lane->outbox);
    Py_CLEAR(lane->intake);
    Py_CLEAR(lane->by_address);
    return 0;
}

static void lane_dealloc(Lane *lane)
{
    PyObject_GC_UnTrack(lane);
    lane_clear(lane);
    Py_TYPE(lane)->tp_free(lane);
}

static PyMethodDef lane_methods[] = {
    {"forward", (PyCFunction)(void (*)(void))lane_forward, METH_FASTCALL, NULL},
    {"forward_batch", (PyCFunction)(void (*)(void))lane_forward_batch, METH_FASTCALL, NULL},
    {"listen", (PyCFunction)(void (*)(void))lane_listen, METH_VARARGS | METH_KEYWORDS, NULL},
    {"relay", (PyCFunction)(void (*)(void))lane_relay, METH_FASTCALL, NULL},
    {NULL},
};

static PyMemberDef lane_members[] = {
    {"dropped", T_ULONGLONG, offsetof(Lane, dropped), READONLY, NULL},
    {NULL},
};

static PyTypeObject LaneType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "media._fastlane.Lane",
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)lane_init,
    .tp_traverse = (traverseproc)lane_traverse,
    .tp_clear = (inquiry)lane_clear,
    .tp_dealloc = (destructor)lane_dealloc,
    .tp_methods = lane_methods,
    .tp_members = lane_members,
};

/* -- The journal's records ----------------------------------------------------------------------- */

#ifdef __x86_64__
enum { RTP_RECORD = 2 };

/* What a batch holds of each track. */
typedef struct {
    long packets[256];
    int64_t octets[256];
} TrackCounts;

static PyObject *listed(const TrackCounts *counts)
{
    PyObject *list = PyList_New(0);
    for (int track = 0; list != NULL && track < 256; track++) {
        if (counts->packets[track] == 0)
            continue;
        PyObject *row = Py_BuildValue("ilL", track, counts->packets[track],
                                      (long long)counts->octets[track]);
        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

/* journal.encode_batch. In two passes, the first of which only adds up. */
static PyObject *encode_batch(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyList_CheckExact(arguments[1]))
        return PyErr_Format(PyExc_TypeError, "encode_batch(seed, list)");
    uint32_t seed = (uint32_t)PyLong_AsUnsignedLong(arguments[0]);
    if (PyErr_Occurred())
        return NULL;
    PyObject *batch = arguments[1];
    Py_ssize_t total = 0;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(batch); i++) {
        PyObject *item = PyList_GET_ITEM(batch, i);
        PyObject *packet = PyTuple_CheckExact(item) && PyTuple_GET_SIZE(item) == 3
            ? PyTuple_GET_ITEM(item, 2) : item;
        if (!PyBytes_CheckExact(packet))
            return PyErr_Format(PyExc_TypeError, "neither a record nor a packet: %R", item);
        if (packet != item && PyBytes_GET_SIZE(packet) > 0xFFFF)
            return PyErr_Format(PyExc_ValueError, "a packet of more than 65,535 bytes");
        total += PyBytes_GET_SIZE(packet) + (packet == item ? 0 : RECORD_HEAD_BYTES + CRC_BYTES);
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, total);
    if (made == NULL)
        return NULL;
    uint8_t *at = (uint8_t *)PyBytes_AS_STRING(made);
    uint64_t from_ns = 0, to_ns = 0;
    TrackCounts counts = {0};
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(batch); i++) {
        PyObject *item = PyList_GET_ITEM(batch, i);
        if (PyBytes_CheckExact(item)) {
            memcpy(at, PyBytes_AS_STRING(item), (size_t)PyBytes_GET_SIZE(item));
            at += PyBytes_GET_SIZE(item);
            continue;
        }
        PyObject *packet = PyTuple_GET_ITEM(item, 2);
        size_t length = (size_t)PyBytes_GET_SIZE(packet);
        uint64_t at_ns = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(item, 1));
        uint8_t track = (uint8_t)PyLong_AsLong(PyTuple_GET_ITEM(item, 0));
        from_ns = from_ns ? from_ns : at_ns;
        to_ns = at_ns;
        counts.packets[track]++;
        counts.octets[track] += (int64_t)length;
        write_16(at, (uint16_t)length);
        at[2] = RTP_RECORD;
        at[3] = track;
        write_32(at + 4, (uint32_t)(at_ns >> 32));
        write_32(at + 8, (uint32_t)at_ns);
        memcpy(at + RECORD_HEAD_BYTES, PyBytes_AS_STRING(packet), length);
        write_32(at + RECORD_HEAD_BYTES + length, crc32c(seed, at, RECORD_HEAD_BYTES + length));
        at += RECORD_HEAD_BYTES + length + CRC_BYTES;
    }
    PyObject *tracks = PyErr_Occurred() ? NULL : listed(&counts);
    PyObject *batch_made = tracks == NULL ? NULL
        : Py_BuildValue("OKKO", made, (unsigned long long)from_ns, (unsigned long long)to_ns,
                        tracks);
    Py_XDECREF(tracks);
    Py_DECREF(made);
    return batch_made;
}

static PyMethodDef encode_batch_method = {
    "encode_batch", (PyCFunction)(void (*)(void))encode_batch, METH_FASTCALL, NULL};
#endif

/* -- The module ---------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"take_in", (PyCFunction)(void (*)(void))take_in, METH_FASTCALL, NULL},
    {"hand_over", (PyCFunction)(void (*)(void))hand_over, METH_FASTCALL, NULL},
    {NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "media._fastlane", .m_size = -1, .m_methods = methods};

PyMODINIT_FUNC PyInit__fastlane(void)
{
    if (PyType_Ready(&LaneType) < 0)
        return NULL;
    NAME_posted = PyUnicode_InternFromString("posted");
    NAME_flush = PyUnicode_InternFromString("flush");
    NAME_intake = PyUnicode_InternFromString("intake");
    NAME_rtp = PyUnicode_InternFromString("rtp");
    NAME_hear = PyUnicode_InternFromString("hear");
    NAME_unprotectable = PyUnicode_InternFromString("unprotectable");
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddObjectRef(module, "Lane", (PyObject *)&LaneType) < 0)
        return NULL;
#ifdef __x86_64__
    if (__builtin_cpu_supports("sse4.2")) {
        PyObject *function = PyCFunction_New(&encode_batch_method, NULL);
        if (function == NULL || PyModule_AddObject(module, "encode_batch", function) < 0)
            return NULL;
    }
#endif
    return module;
}
