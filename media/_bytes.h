/* Bytes of the network and of journals, for both files in C (media/_fastlane.c, media/_reel.c). */

#ifndef MEDIA_BYTES_H
#define MEDIA_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t read_16(const uint8_t *at) { return (uint16_t)(at[0] << 8 | at[1]); }

static inline uint32_t read_32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t read_64(const uint8_t *at)
{
    return (uint64_t)read_32(at) << 32 | read_32(at + 4);
}

static inline void write_16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline void write_32(uint8_t *at, uint32_t value)
{
    write_16(at, (uint16_t)(value >> 16));
    write_16(at + 2, (uint16_t)value);
}

#ifdef __x86_64__
#include <nmmintrin.h>

/* CRC32C as google_crc32c.extend does it, by the processor's own instruction. Ask for sse4.2
   before it is called. */
__attribute__((target("sse4.2"), unused)) static uint32_t crc32c(uint32_t crc, const uint8_t *data,
                                                                 size_t length)
{
    uint64_t wide = (uint32_t)~crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint64_t eight;
        memcpy(&eight, data, 8);
        wide = _mm_crc32_u64(wide, eight);
    }
    uint32_t narrow = (uint32_t)wide;
    for (; length > 0; data++, length--)
        narrow = _mm_crc32_u8(narrow, *data);
    return ~narrow;
}
#endif

#endif
