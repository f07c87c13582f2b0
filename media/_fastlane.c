/* The common case of the hot loop, the wait for it, and the journal's records, in C.

   media/router.py is the truth: what a packet goes through, in what order and why, is written there.
   This file does the same to the same tables (media/tables.py) for the packets that make up nearly
   all of a call: known address, known SSRC, the very next sequence number, the usual payload type,
   the gate open. Whatever is different in any way is left untouched and returned to Python, so a
   special case exists once. It walks the very tables that Python does, their objects through the
   places of their slots, their numbers as C structures (media/numbers.py), so nothing is kept twice
   and nothing needs to be brought into line.

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

/* -- The tables: where Python and we keep what ---------------------------------------------------- */

/* Numbers, side by side: the bases of Python's tables (media/numbers.py). A number in an object of its
   own, as Python keeps it otherwise, is one more line of memory to wait for, and there are some thirty
   in a packet's way. */
#define LEG_NUMBERS(N) \
    N(LONGLONG, last_packet_ns) N(LONGLONG, packets_in) N(LONGLONG, bytes_in) \
    N(LONGLONG, rejected) N(BOOL, is_connected)
#define SOURCE_NUMBERS(N) \
    N(LONGLONG, next_seq) N(LONGLONG, payload_type) N(LONGLONG, advanced) N(LONGLONG, received) \
    N(LONGLONG, last_timestamp) N(LONGLONG, clock_rate) N(LONGLONG, transit) N(DOUBLE, jitter) \
    N(LONGLONG, seq_offset) N(LONGLONG, timestamp_offset) N(LONGLONG, track_index) \
    N(LONGLONG, extension_id) N(LONGLONG, extension_at) N(BOOL, is_anchored)
#define PUBLICATION_NUMBERS(N) \
    N(LONGLONG, next_seq) N(LONGLONG, next_timestamp) N(LONGLONG, last_arrival_ns) \
    N(LONGLONG, cache_mask) N(LONGLONG, loud_packets) N(LONGLONG, loud_until_ns) N(BOOL, is_open) \
    N(BOOL, is_speaking)
#define SUBSCRIPTION_NUMBERS(N) \
    N(LONGLONG, seq_offset) N(LONGLONG, ssrc) N(LONGLONG, rtx_ssrc) N(LONGLONG, packets) \
    N(LONGLONG, octets)
#define SESSION_NUMBERS(N) N(LONGLONG, handle)
#define OUTBOX_NUMBERS(N) N(LONGLONG, posted)

typedef long long LONGLONG;
typedef double DOUBLE;
typedef char BOOL;
#define FIELD(kind, name) kind name;
#define MEMBER(kind, name) {#name, T_##kind, offsetof(TABLE, name), 0, NULL},
#define DEFINE(NUMBERS) \
    typedef struct { \
        PyObject_HEAD \
        NUMBERS(FIELD) \
    } TABLE;

#define TABLE LegNumbers
DEFINE(LEG_NUMBERS)
static PyMemberDef leg_numbers[] = {LEG_NUMBERS(MEMBER){NULL}};
#undef TABLE
#define TABLE SourceNumbers
DEFINE(SOURCE_NUMBERS)
static PyMemberDef source_numbers[] = {SOURCE_NUMBERS(MEMBER){NULL}};
#undef TABLE
#define TABLE PublicationNumbers
DEFINE(PUBLICATION_NUMBERS)
static PyMemberDef publication_numbers[] = {PUBLICATION_NUMBERS(MEMBER){NULL}};
#undef TABLE
#define TABLE SubscriptionNumbers
DEFINE(SUBSCRIPTION_NUMBERS)
static PyMemberDef subscription_numbers[] = {SUBSCRIPTION_NUMBERS(MEMBER){NULL}};
#undef TABLE
#define TABLE SessionNumbers
DEFINE(SESSION_NUMBERS)
static PyMemberDef session_numbers[] = {SESSION_NUMBERS(MEMBER){NULL}};
#undef TABLE
#define TABLE OutboxNumbers
DEFINE(OUTBOX_NUMBERS)
static PyMemberDef outbox_numbers[] = {OUTBOX_NUMBERS(MEMBER){NULL}};
#undef TABLE

#define NUMBERS_TYPE(table, with_members) { \
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "media._fastlane." #table, \
    .tp_basicsize = sizeof(table), \
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE, \
    .tp_new = PyType_GenericNew, \
    .tp_members = with_members, \
}
enum { LEG, SOURCE, PUBLICATION, SUBSCRIPTION, SESSION, OUTBOX, TABLES };
static PyTypeObject numbers_types[TABLES] = {
    [LEG] = NUMBERS_TYPE(LegNumbers, leg_numbers),
    [SOURCE] = NUMBERS_TYPE(SourceNumbers, source_numbers),
    [PUBLICATION] = NUMBERS_TYPE(PublicationNumbers, publication_numbers),
    [SUBSCRIPTION] = NUMBERS_TYPE(SubscriptionNumbers, subscription_numbers),
    [SESSION] = NUMBERS_TYPE(SessionNumbers, session_numbers),
    [OUTBOX] = NUMBERS_TYPE(OutboxNumbers, outbox_numbers),
};

static inline LegNumbers *leg_of(PyObject *leg) { return (LegNumbers *)leg; }
static inline SourceNumbers *source_of(PyObject *source) { return (SourceNumbers *)source; }
static inline PublicationNumbers *publication_of(PyObject *publication)
{
    return (PublicationNumbers *)publication;
}

/* Objects, in the slots of Python's classes, which stand behind the numbers. */
#define LEG_SLOTS(S) S(inbound) S(outbound) S(address) S(numbers) S(sources) S(tap)
#define SOURCE_SLOTS(S) S(publication) S(extension_head)
#define PUBLICATION_SLOTS(S) S(source) S(cache) S(targets) S(translated)
#define SUBSCRIPTION_SLOTS(S) S(leg)

#define DECLARE(name) Py_ssize_t name;
static struct { LEG_SLOTS(DECLARE) } leg_at;
static struct { SOURCE_SLOTS(DECLARE) } source_at;
static struct { PUBLICATION_SLOTS(DECLARE) } publication_at;
static struct { SUBSCRIPTION_SLOTS(DECLARE) } subscription_at;

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

#define LEARN(at, type, name) if (((at).name = slot_of(type, #name)) < 0) return -1;
#define LEARN_LEG(name) LEARN(leg_at, types[LEG], name)
#define LEARN_SOURCE(name) LEARN(source_at, types[SOURCE], name)
#define LEARN_PUBLICATION(name) LEARN(publication_at, types[PUBLICATION], name)
#define LEARN_SUBSCRIPTION(name) LEARN(subscription_at, types[SUBSCRIPTION], name)

static int learn(PyObject **types)
{
    for (int i = 0; i < TABLES; i++)
        if (!PyType_Check(types[i])
            || !PyType_IsSubtype((PyTypeObject *)types[i], &numbers_types[i])) {
            PyErr_Format(PyExc_TypeError, "%R is no %s", types[i], numbers_types[i].tp_name);
            return -1;
        }
    LEG_SLOTS(LEARN_LEG)
    SOURCE_SLOTS(LEARN_SOURCE)
    PUBLICATION_SLOTS(LEARN_PUBLICATION)
    SUBSCRIPTION_SLOTS(LEARN_SUBSCRIPTION)
    return 0;
}

/* Types that do not fit change nothing: lanes that live already go by what was learnt before. */
static int learn_slots(PyObject **types)
{
    __typeof__(leg_at) leg_was = leg_at;
    __typeof__(source_at) source_was = source_at;
    __typeof__(publication_at) publication_was = publication_at;
    __typeof__(subscription_at) subscription_was = subscription_at;
    if (learn(types) == 0)
        return 0;
    leg_at = leg_was;
    source_at = source_was;
    publication_at = publication_was;
    subscription_at = subscription_was;
    return -1;
}

/* A borrowed reference. `leg_at.tap` of a leg is AT(leg, leg_at.tap). */
#define AT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

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

/* -- The journal's records ----------------------------------------------------------------------- */

#ifdef __x86_64__
enum { RTP_RECORD = 2, MOST_TRACKS = 256, MOST_PAYLOAD = 0xFFFF };
enum { FIRST_ROOM = 512, USUAL_MOST = 65536 };

/* taps.Intake. What waits for the writer is encoded as it comes, while the packet is still near: later
   it would have to be fetched from memory once more. */
typedef struct {
    PyObject_HEAD
    LONGLONG accepted_bytes, limit_bytes, tracks;
    BOOL is_open;
    uint32_t seed;
    PyObject *records;     /* bytes that nobody has seen, of which `used` are written; or NULL */
    Py_ssize_t used, usual;
    LONGLONG waiting, packets;
    uint64_t from_ns, to_ns; /* of the packets */
    int tracks_used;       /* above these nothing is counted */
    long packets_of[MOST_TRACKS];
    int64_t octets_of[MOST_TRACKS];
} Intake;

static PyTypeObject IntakeType;

/* Where the next `size` bytes go; NULL with an exception, and nothing lost. */
static uint8_t *intake_room(Intake *intake, Py_ssize_t size)
{
    Py_ssize_t wanted = intake->used + size;
    if (intake->records == NULL || PyBytes_GET_SIZE(intake->records) < wanted) {
        Py_ssize_t capacity = intake->records == NULL ? intake->usual : 2 * wanted;
        PyObject *larger = PyBytes_FromStringAndSize(NULL, capacity < wanted ? wanted : capacity);
        if (larger == NULL)
            return NULL;
        if (intake->records != NULL)
            memcpy(PyBytes_AS_STRING(larger), PyBytes_AS_STRING(intake->records),
                   (size_t)intake->used);
        Py_XSETREF(intake->records, larger);
    }
    return (uint8_t *)PyBytes_AS_STRING(intake->records) + intake->used;
}

/* One RTP record, as journal.encode_record makes it. */
static int intake_write(Intake *intake, uint8_t track, PyObject *packet, int64_t arrival_ns)
{
    size_t length = (size_t)PyBytes_GET_SIZE(packet);
    uint8_t *at = intake_room(intake, (Py_ssize_t)length + RECORD_HEAD_BYTES + CRC_BYTES);
    if (at == NULL)
        return -1;
    uint64_t at_ns = (uint64_t)arrival_ns;
    write_16(at, (uint16_t)length);
    at[2] = RTP_RECORD;
    at[3] = track;
    write_32(at + 4, (uint32_t)(at_ns >> 32));
    write_32(at + 8, (uint32_t)at_ns);
    memcpy(at + RECORD_HEAD_BYTES, PyBytes_AS_STRING(packet), length);
    write_32(at + RECORD_HEAD_BYTES + length,
             crc32c(intake->seed, at, RECORD_HEAD_BYTES + length));
    intake->used += (Py_ssize_t)length + RECORD_HEAD_BYTES + CRC_BYTES;
    intake->from_ns = intake->from_ns ? intake->from_ns : at_ns;
    intake->to_ns = at_ns;
    intake->waiting++;
    intake->packets++;
    intake->packets_of[track]++;
    intake->octets_of[track] += (int64_t)length;
    if (track >= intake->tracks_used)
        intake->tracks_used = track + 1;
    return 0;
}

/* Intake.put: 1 if the packet waits there now, 0 if this is another case, -1 on failure. */
static int intake_put(Intake *intake, int64_t track, PyObject *packet, int64_t arrival_ns)
{
    int64_t accepted =
        intake->accepted_bytes + PyBytes_GET_SIZE(packet) + RECORD_HEAD_BYTES + CRC_BYTES;
    if (!intake->is_open || track < 0 || track >= intake->tracks || track >= MOST_TRACKS
        || accepted > intake->limit_bytes || PyBytes_GET_SIZE(packet) > MOST_PAYLOAD)
        return 0;
    if (intake_write(intake, (uint8_t)track, packet, arrival_ns) < 0)
        return -1;
    intake->accepted_bytes = accepted;
    return 1;
}

/* (track, packet, arrival_ns), as `put` and `keep` are told them. */
static int packet_told(PyObject *const *arguments, Py_ssize_t count, int64_t *track,
                       int64_t *arrival_ns)
{
    if (count != 3 || !PyBytes_CheckExact(arguments[1])) {
        PyErr_Format(PyExc_TypeError, "what waits is a track, a packet in bytes, and its arrival");
        return -1;
    }
    *track = PyLong_AsLongLong(arguments[0]);
    *arrival_ns = PyLong_AsLongLong(arguments[2]);
    return PyErr_Occurred() ? -1 : 0;
}

static PyObject *intake_put_told(Intake *intake, PyObject *const *arguments, Py_ssize_t count)
{
    int64_t track, arrival_ns;
    if (packet_told(arguments, count, &track, &arrival_ns) < 0)
        return NULL;
    int done = intake_put(intake, track, arguments[1], arrival_ns);
    return done < 0 ? NULL : PyBool_FromLong(done);
}

static PyObject *intake_keep(Intake *intake, PyObject *const *arguments, Py_ssize_t count)
{
    int64_t track, arrival_ns;
    if (packet_told(arguments, count, &track, &arrival_ns) < 0)
        return NULL;
    if (track < 0 || track >= MOST_TRACKS || PyBytes_GET_SIZE(arguments[1]) > MOST_PAYLOAD)
        return PyErr_Format(PyExc_ValueError, "a packet of at most 65,535 bytes, a track below 256");
    if (intake_write(intake, (uint8_t)track, arguments[1], arrival_ns) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *intake_add(Intake *intake, PyObject *record)
{
    if (!PyBytes_CheckExact(record))
        return PyErr_Format(PyExc_TypeError, "a record is bytes, not %R", record);
    uint8_t *at = intake_room(intake, PyBytes_GET_SIZE(record));
    if (at == NULL)
        return NULL;
    memcpy(at, PyBytes_AS_STRING(record), (size_t)PyBytes_GET_SIZE(record));
    intake->used += PyBytes_GET_SIZE(record);
    intake->waiting++;
    Py_RETURN_NONE;
}

static PyObject *intake_counts(const Intake *intake)
{
    PyObject *list = PyList_New(0);
    for (int track = 0; list != NULL && track < intake->tracks_used; track++) {
        if (intake->packets_of[track] == 0)
            continue;
        PyObject *row = Py_BuildValue("ilL", track, intake->packets_of[track],
                                      (long long)intake->octets_of[track]);
        if (row == NULL || PyList_Append(list, row) < 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

/* Intake.take: all at once, or nothing. */
static PyObject *intake_take(Intake *intake, PyObject *nothing)
{
    (void)nothing;
    if (intake->waiting == 0)
        Py_RETURN_NONE;
    PyObject *taken = NULL;
    LONGLONG waiting;
    int is_roomy;
    do { /* To make objects may set the collector off, and that lets the loop's thread put more here,
            into another buffer perhaps. */
        waiting = intake->waiting;
        is_roomy = PyBytes_GET_SIZE(intake->records) > 2 * intake->used;
        /* What waits for a disk is bounded by its length: it must not hold far more than that. */
        PyObject *records = is_roomy
            ? PyBytes_FromStringAndSize(PyBytes_AS_STRING(intake->records), intake->used)
            : Py_NewRef(intake->records);
        PyObject *counts = records == NULL ? NULL : intake_counts(intake);
        PyObject *found = counts == NULL ? NULL
            : Py_BuildValue("OLLKKO", records, waiting, intake->packets,
                            (unsigned long long)intake->from_ns, (unsigned long long)intake->to_ns,
                            counts);
        Py_XDECREF(counts);
        Py_XDECREF(records);
        Py_XSETREF(taken, found);
        if (taken == NULL)
            return NULL;
    } while (intake->waiting != waiting);
    if (!is_roomy) {
        /* Nobody has seen these bytes: they may be cut to what was written, which cannot fail. */
        Py_SET_SIZE(intake->records, intake->used);
        PyBytes_AS_STRING(intake->records)[intake->used] = 0;
    }
    Py_CLEAR(intake->records);
    intake->usual = intake->used + intake->used / 4;
    if (intake->usual < FIRST_ROOM || intake->usual > USUAL_MOST)
        intake->usual = intake->usual < FIRST_ROOM ? FIRST_ROOM : USUAL_MOST;
    intake->used = 0;
    intake->waiting = intake->packets = 0;
    intake->from_ns = intake->to_ns = 0;
    memset(intake->packets_of, 0, (size_t)intake->tracks_used * sizeof intake->packets_of[0]);
    memset(intake->octets_of, 0, (size_t)intake->tracks_used * sizeof intake->octets_of[0]);
    intake->tracks_used = 0;
    return taken;
}

static int intake_init(Intake *intake, PyObject *arguments, PyObject *names)
{
    static char *known[] = {"limit_bytes", "crc_seed", NULL};
    unsigned int seed = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, names, "L|I", known, &intake->limit_bytes, &seed))
        return -1;
    intake->seed = seed;
    intake->usual = FIRST_ROOM;
    intake->is_open = 1;
    return 0;
}

static void intake_dealloc(Intake *intake)
{
    Py_CLEAR(intake->records);
    Py_TYPE(intake)->tp_free(intake);
}

static PyMethodDef intake_methods[] = {
    {"put", (PyCFunction)(void (*)(void))intake_put_told, METH_FASTCALL, NULL},
    {"keep", (PyCFunction)(void (*)(void))intake_keep, METH_FASTCALL, NULL},
    {"add", (PyCFunction)intake_add, METH_O, NULL},
    {"take", (PyCFunction)intake_take, METH_NOARGS, NULL},
    {NULL},
};

#define TABLE Intake
static PyMemberDef intake_members[] = {
    MEMBER(LONGLONG, accepted_bytes) MEMBER(LONGLONG, limit_bytes) MEMBER(LONGLONG, tracks)
    MEMBER(BOOL, is_open)
    {"waiting", T_LONGLONG, offsetof(Intake, waiting), READONLY, NULL},
    {"packets", T_LONGLONG, offsetof(Intake, packets), READONLY, NULL},
    {NULL},
};
#undef TABLE

static PyTypeObject IntakeType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "media._fastlane.Intake",
    .tp_basicsize = sizeof(Intake),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)intake_init,
    .tp_dealloc = (destructor)intake_dealloc,
    .tp_methods = intake_methods,
    .tp_members = intake_members,
};
#endif

/* -- The lane ------------------------------------------------------------------------------------ */

typedef struct {
    PyObject_HEAD
    PyObject *router;      /* counts what could not be encrypted, and hears who speaks */
    PyObject *outbox;
    srtp_call unprotect, protect;
    struct iovec *slots;   /* of the outbox: where a packet is built, and its length */
    uint8_t *names;        /* of the outbox: whom each goes to */
    int name_bytes, slot_count;
    int audio_level_extension, loud_level, loud_packets;
    long long speech_hangover_ns;
    int has_called;        /* something in Python, since `relay` was called */
    /* What `listen` was told, for `relay`: the socket, its receive slots, the outbox's headers. */
    int fd;
    struct mmsghdr *incoming, *outgoing;
    int incoming_slots;
    unsigned most_bytes;
    PyObject *by_address;
    unsigned long long dropped; /* what the kernel did not take from `relay` */
} Lane;

static PyObject *NAME_flush, *NAME_intake, *NAME_rtp, *NAME_hear, *NAME_unprotectable;

static inline LONGLONG *posted_of(Lane *lane) { return &((OutboxNumbers *)lane->outbox)->posted; }

/* The outbox is full: let everything go. */
static int flush(Lane *lane)
{
    lane->has_called = 1;
    PyObject *nothing = PyObject_CallMethodNoArgs(lane->outbox, NAME_flush);
    Py_XDECREF(nothing);
    return nothing == NULL ? -1 : 0;
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

/* Step 3's second half: into the record, without a call where it can be. */
static int keep_for_record(Lane *lane, PyObject *tap, int64_t track, PyObject *packet,
                           int64_t arrival_ns)
{
    int done = 0;
#ifdef __x86_64__
    PyObject *intake = PyObject_GetAttr(tap, NAME_intake);
    if (intake == NULL)
        return -1;
    if (Py_IS_TYPE(intake, &IntakeType))
        done = intake_put((Intake *)intake, track, packet, arrival_ns);
    Py_DECREF(intake);
#endif
    return done ? done : call(lane, tap, NAME_rtp, packet, track, arrival_ns, 1);
}

static inline void *context_of(PyObject *session)
{
    return (void *)(uintptr_t)((SessionNumbers *)session)->handle;
}

/* Step 5 of the router: one rewritten, encrypted copy per receiver. */
static int send_copies(Lane *lane, PyObject *targets, const uint8_t *packet, Py_ssize_t length,
                       uint16_t out_seq, uint32_t out_timestamp, Py_ssize_t stamp_at,
                       uint32_t stamp)
{
    Py_ssize_t count = PyTuple_GET_SIZE(targets);
    LONGLONG *posted = posted_of(lane);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *target = PyTuple_GET_ITEM(targets, i);
        PyObject *leg = AT(target, subscription_at.leg);
        PyObject *address = AT(leg, leg_at.address), *session = AT(leg, leg_at.outbound);
        if (address == Py_None || session == Py_None
            || PyBytes_GET_SIZE(address) != lane->name_bytes)
            continue;
        if (*posted == lane->slot_count && flush(lane) < 0)
            return -1;
        SubscriptionNumbers *numbers = (SubscriptionNumbers *)target;
        uint8_t *copy = lane->slots[*posted].iov_base;
        memcpy(copy, packet, (size_t)length);
        write_16(copy + 2, (uint16_t)(out_seq + numbers->seq_offset));
        write_32(copy + 4, out_timestamp);
        write_32(copy + 8, (uint32_t)numbers->ssrc);
        if (stamp_at && numbers->rtx_ssrc != 0) {
            /* never on packets that may be repeated as they are */
            copy[stamp_at] = (uint8_t)(stamp >> 16);
            write_16(copy + stamp_at + 1, (uint16_t)stamp);
        }
        int size = (int)length;
        if (lane->protect(context_of(session), copy, &size)) {
            if (count_unprotectable(lane) < 0)
                return -1;
            continue;
        }
        lane->slots[*posted].iov_len = (size_t)size;
        memcpy(lane->names + *posted * lane->name_bytes, PyBytes_AS_STRING(address),
               (size_t)lane->name_bytes);
        ++*posted;
        numbers->packets++;
        numbers->octets += length;
    }
    return 0;
}

/* The router's hear. Python is called when it is to be told that somebody begins to speak, or has
   ended; who is told may want to send something. */
static int hear(Lane *lane, PyObject *source, PyObject *publication, int level, int64_t arrival_ns)
{
    PublicationNumbers *to = publication_of(publication);
    if (level < lane->loud_level) {
        if (to->is_speaking || to->loud_packets + 1 < lane->loud_packets) {
            to->loud_packets++;
            to->loud_until_ns = arrival_ns + lane->speech_hangover_ns;
            return 0;
        }
    } else if (arrival_ns <= to->loud_until_ns) {
        return 0;
    } else if (!to->is_speaking) {
        to->loud_packets = 0;
        return 0;
    }
    return call(lane, lane->router, NAME_hear, source, level, arrival_ns, 0);
}

/* Steps 1 to 5 of the router for a packet that has been looked at and decrypted. */
static int route(Lane *lane, PyObject *leg, PyObject *source, PyObject *publication,
                 PyObject *packet, Py_ssize_t extension_at, int64_t arrival_ns)
{
    const uint8_t *bytes = (const uint8_t *)PyBytes_AS_STRING(packet);
    Py_ssize_t length = PyBytes_GET_SIZE(packet);
    uint16_t seq = read_16(bytes + 2);
    uint32_t timestamp = read_32(bytes + 4);

    SourceNumbers *from = source_of(source);
    PublicationNumbers *to = publication_of(publication);

    /* 1. Numbers: in order, or it would not be here. */
    from->next_seq = (uint16_t)(seq + 1);
    from->advanced++;
    from->received++;
    if (timestamp != from->last_timestamp) { /* jitter, RFC 3550 A.8 */
        int64_t transit = (int64_t)((__int128)arrival_ns * from->clock_rate / SECOND_NS) - timestamp;
        uint32_t change = (uint32_t)(transit - from->transit);
        double step = change >= 0x80000000u ? (double)(0x100000000 - change) : (double)change;
        from->jitter += (step - from->jitter) / 16;
        from->last_timestamp = timestamp;
        from->transit = transit;
    }

    /* 2. The gate is open. */
    uint16_t out_seq = (uint16_t)(seq + from->seq_offset);
    uint32_t out_timestamp = (uint32_t)(timestamp + from->timestamp_offset);
    to->next_seq = (uint16_t)(out_seq + 1);
    to->next_timestamp = out_timestamp;
    to->last_arrival_ns = arrival_ns;

    /* 3. Keep it: for receivers that will ask again, and for the record. */
    PyObject *kept =
        triple(PyLong_FromLong(out_seq), PyLong_FromUnsignedLong(out_timestamp), packet);
    if (kept == NULL)
        return -1;
    if (PyList_SetItem(AT(publication, publication_at.cache), out_seq & to->cache_mask, kept) < 0)
        return -1;
    PyObject *tap = AT(leg, leg_at.tap);
    if (from->track_index >= 0 && tap != Py_None
        && keep_for_record(lane, tap, from->track_index, packet, arrival_ns) < 0)
        return -1;

    /* 4. Audio level is read, abs-send-time is rewritten. */
    Py_ssize_t stamp_at = 0;
    uint32_t stamp = 0;
    int is_level = from->extension_id == lane->audio_level_extension;
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
    if (*length < HEADER_BYTES || !leg_of(leg)->is_connected || session == Py_None
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
    SourceNumbers *from = source_of(source);
    if (read_16(data + 2) != from->next_seq || (data[1] & 0x7F) != from->payload_type
        || !from->is_anchored || !publication_of(publication)->is_open
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
        extension_at = (Py_ssize_t)from->extension_at;
    }

    /* Nothing has been changed so far, and nothing believed: all that was read was the header. */
    if (lane->unprotect(context_of(session), data, length)) {
        leg_of(leg)->rejected++; /* forged, damaged, or replayed */
        return DONE;
    }

    PyObject *packet = PyBytes_FromStringAndSize((const char *)data, *length);
    if (packet == NULL)
        return ERROR;
    Py_INCREF(leg);
    Py_INCREF(source);
    Py_INCREF(publication);
    leg_of(leg)->last_packet_ns = arrival_ns;
    leg_of(leg)->packets_in++;
    leg_of(leg)->bytes_in += *length;
    int failed = route(lane, leg, source, publication, packet, extension_at, arrival_ns) < 0;
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
    if (PyErr_Occurred())
        return NULL;
    int outcome = forward(lane, arguments[0], data, length, arrival_ns);
    return outcome == ERROR ? NULL : PyBool_FromLong(outcome == DONE);
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
    if (PyErr_Occurred())
        return NULL;
    at = forward_all(lane, messages, at, end, most_bytes, by_address, arrival_ns);
    return at < 0 ? NULL : PyLong_FromSsize_t(at);
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
        unsigned posted = (unsigned)*posted_of(lane);
        *posted_of(lane) = 0;
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
        outcome = relay_what_came(lane, trusted_until_ns, &left);
        if (outcome == ERROR)
            return NULL;
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
    PyObject *types[TABLES], *router, *outbox;
    unsigned long long unprotect, protect, slots, slot_names;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, names, "(OOOOOO)OOKKKKiiiiiL", known, &types[LEG], &types[SOURCE],
            &types[PUBLICATION], &types[SUBSCRIPTION], &types[SESSION], &types[OUTBOX],
            &router, &outbox, &unprotect, &protect, &slots, &slot_names,
            &lane->name_bytes, &lane->slot_count, &lane->audio_level_extension, &lane->loud_level,
            &lane->loud_packets, &lane->speech_hangover_ns))
        return -1;
    if (learn_slots(types) < 0)
        return -1;
    if (!PyObject_TypeCheck(outbox, &numbers_types[OUTBOX])) {
        PyErr_Format(PyExc_TypeError, "%R is no outbox", outbox);
        return -1;
    }
    Py_XSETREF(lane->router, Py_NewRef(router));
    Py_XSETREF(lane->outbox, Py_NewRef(outbox));
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
    Py_VISIT(lane->by_address);
    return 0;
}

static int lane_clear(Lane *lane)
{
    Py_CLEAR(lane->router);
    Py_CLEAR(lane->outbox);
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
    for (int i = 0; i < TABLES; i++)
        if (PyType_Ready(&numbers_types[i]) < 0)
            return NULL;
    NAME_flush = PyUnicode_InternFromString("flush");
    NAME_intake = PyUnicode_InternFromString("intake");
    NAME_rtp = PyUnicode_InternFromString("rtp");
    NAME_hear = PyUnicode_InternFromString("hear");
    NAME_unprotectable = PyUnicode_InternFromString("unprotectable");
    PyObject *module = PyModule_Create(&definition);
    if (module == NULL || PyModule_AddObjectRef(module, "Lane", (PyObject *)&LaneType) < 0)
        return NULL;
    for (int i = 0; i < TABLES; i++)
        if (PyModule_AddType(module, &numbers_types[i]) < 0)
            return NULL;
#ifdef __x86_64__
    if (PyType_Ready(&IntakeType) < 0
        || (__builtin_cpu_supports("sse4.2") && PyModule_AddType(module, &IntakeType) < 0))
        return NULL;
#endif
    return module;
}
