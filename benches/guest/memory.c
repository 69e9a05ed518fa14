// Memory: copies, fills, dependent loads and strides, inside and outside of the reach of caches and TLBs.

#include "bench.h"
#include <emmintrin.h>

enum { COPY = 1 << 20 };

static uint32_t first_words(void)
{
    const uint32_t *words = (const uint32_t *)(arena + COPY);
    uint32_t checksum = 0;
    for (int i = 0; i < COPY / 4; i += 1021)
        checksum = mix(checksum, words[i]);
    return checksum;
}

static void fill_source(void)
{
    uint32_t random = 47, *words = (uint32_t *)arena;
    for (int i = 0; i < COPY / 4; i++)
        words[i] = next_random(&random);
}

static uint32_t copy_rep(void)
{
    fill_source();
    for (int round = 0; round < 6; round++) {
        void *to = arena + COPY, *from = arena;
        size_t count = COPY - (size_t)round;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    }
    return first_words();
}

static uint32_t copy_words(void)
{
    fill_source();
    for (int round = 0; round < 32; round++) {
        const size_t *from = (const size_t *)arena;
        size_t *to = (size_t *)(arena + COPY);
        for (size_t i = 0; i < COPY / sizeof *to; i++)
            to[i] = from[i];
        BARRIER();
    }
    return first_words();
}

static uint32_t copy_sse(void)
{
    fill_source();
    for (int round = 0; round < 100; round++)
        for (int i = 0; i < COPY - 64; i += 64) {
            // The source is not aligned in most rounds.
            const __m128i *from = (const __m128i *)(arena + i + round % 8);
            __m128i *to = (__m128i *)(arena + COPY + i);
            __m128i a = _mm_loadu_si128(from), b = _mm_loadu_si128(from + 1), c = _mm_loadu_si128(from + 2);
            __m128i d = _mm_loadu_si128(from + 3);
            _mm_store_si128(to, a), _mm_store_si128(to + 1, b), _mm_store_si128(to + 2, c), _mm_store_si128(to + 3, d);
        }
    return first_words();
}

static uint32_t copy_bytes(void)
{
    fill_source();
    for (int round = 0; round < 4; round++)
        for (int i = 0; i < COPY; i++) {
            arena[COPY + i] = arena[i];
            BARRIER();
        }
    return first_words();
}

static uint32_t fill_rep(void)
{
    for (int round = 0; round < 300; round++) {
        void *to = arena + COPY;
        size_t count = COPY / 4;
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(round) : "memory");
    }
    return first_words();
}

// Follows a random cycle through `slots` slots of 64 bytes (Sattolo's shuffle makes one cycle of all).
static uint32_t chase(uint32_t slots, uint32_t steps)
{
    struct slot { uint32_t next, padding[15]; } *slot = (struct slot *)arena;
    uint32_t random = 53, at = 0;
    for (uint32_t i = 0; i < slots; i++)
        slot[i].next = i;
    for (uint32_t i = slots - 1; i > 0; i--) {
        uint32_t j = (next_random(&random) >> 8) % i, swap = slot[i].next;
        slot[i].next = slot[j].next, slot[j].next = swap;
    }
    for (uint32_t i = 0; i < steps; i++)
        at = slot[at].next;
    return at;
}

static uint32_t chase_near(void)
{
    return chase(256, 20000000);
}

static uint32_t chase_far(void)
{
    return chase(ARENA_BYTES / 64, 400000);
}

static uint32_t stride(uint32_t bytes, int rounds)
{
    uint32_t sum = 0;
    for (int round = 0; round < rounds; round++)
        for (uint32_t at = 0; at < ARENA_BYTES; at += bytes) {
            sum += *(volatile uint32_t *)(arena + at);
            *(volatile uint32_t *)(arena + at) = sum;
        }
    return sum;
}

// One access per page touches more pages than a TLB holds.
static uint32_t stride_page(void)
{
    for (uint32_t at = 0; at < ARENA_BYTES; at += 4)
        *(uint32_t *)(arena + at) = at;
    return stride(4096, 250);
}

static uint32_t stride_line(void)
{
    for (uint32_t at = 0; at < ARENA_BYTES; at += 4)
        *(uint32_t *)(arena + at) = at;
    return stride(64, 30);
}

const struct benchmark memory_benchmarks[] = {
    {"memory/copy_rep", copy_rep},     {"memory/copy_words", copy_words},   {"memory/copy_sse", copy_sse},
    {"memory/copy_bytes", copy_bytes}, {"memory/fill_rep", fill_rep},       {"memory/chase_near", chase_near},
    {"memory/chase_far", chase_far},   {"memory/stride_page", stride_page}, {"memory/stride_line", stride_line},
    {0, 0},
};
