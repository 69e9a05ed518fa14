// Integer SIMD with SSE2, as image, text and checksum code uses it.

#include "bench.h"
#include <emmintrin.h>

enum { BYTES = 65536 };

static void fill(uint32_t seed)
{
    for (uint32_t i = 0; i < BYTES * 2; i++)
        arena[i] = next_random(&seed) >> 24;
}

static uint32_t horizontal_sum(__m128i v)
{
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
    v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1));
    return (uint32_t)_mm_cvtsi128_si32(v);
}

// Blends two pictures of 8-bit samples: unpack, multiply, add, shift, pack.
static uint32_t blend(void)
{
    fill(31);
    const __m128i zero = _mm_setzero_si128(), alpha = _mm_set1_epi16(77), beta = _mm_set1_epi16(179);
    for (int round = 0; round < 600; round++)
        for (int i = 0; i < BYTES; i += 16) {
            __m128i a = _mm_load_si128((__m128i *)(arena + i)), b = _mm_load_si128((__m128i *)(arena + BYTES + i));
            __m128i low = _mm_add_epi16(_mm_mullo_epi16(_mm_unpacklo_epi8(a, zero), alpha),
                                        _mm_mullo_epi16(_mm_unpacklo_epi8(b, zero), beta));
            __m128i high = _mm_add_epi16(_mm_mullo_epi16(_mm_unpackhi_epi8(a, zero), alpha),
                                         _mm_mullo_epi16(_mm_unpackhi_epi8(b, zero), beta));
            _mm_store_si128((__m128i *)(arena + i), _mm_packus_epi16(_mm_srli_epi16(low, 8), _mm_srli_epi16(high, 8)));
        }
    uint32_t checksum = 0;
    for (int i = 0; i < BYTES; i++)
        checksum = mix(checksum, arena[i]);
    return checksum;
}

static uint32_t dot_product(void)
{
    fill(37);
    __m128i sum = _mm_setzero_si128();
    for (int round = 0; round < 1200; round++)
        for (int i = 0; i < BYTES; i += 16)
            sum = _mm_add_epi32(sum, _mm_madd_epi16(_mm_load_si128((__m128i *)(arena + i)),
                                                    _mm_load_si128((__m128i *)(arena + BYTES + i))));
    return horizontal_sum(sum);
}

// The sum of absolute differences of unaligned blocks: motion search.
static uint32_t difference(void)
{
    fill(41);
    __m128i sum = _mm_setzero_si128();
    for (int round = 0; round < 1200; round++)
        for (int i = 0; i < BYTES - 16; i += 16)
            sum = _mm_add_epi64(sum, _mm_sad_epu8(_mm_loadu_si128((__m128i *)(arena + i + round % 16)),
                                                  _mm_load_si128((__m128i *)(arena + BYTES + i))));
    return horizontal_sum(sum);
}

// Looks for bytes in a text, as memchr and strlen do.
static uint32_t find_byte(void)
{
    fill(43);
    uint32_t checksum = 0;
    for (int round = 0; round < 1500; round++) {
        const __m128i wanted = _mm_set1_epi8((char)round);
        for (int i = 0; i < BYTES; i += 16) {
            uint32_t found = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_load_si128((__m128i *)(arena + i)), wanted));
            if (found)
                checksum = mix(checksum, (uint32_t)(i + __builtin_ctz(found)));
        }
    }
    return checksum;
}

// Shifts, rotations and exclusive ors of 32-bit lanes: the inner loop of a stream cipher.
static uint32_t cipher(void)
{
    __m128i a = _mm_set1_epi32(0x61707865), b = _mm_setr_epi32(1, 2, 3, 4), c = _mm_set1_epi32(7), d = _mm_setr_epi32(9, 8, 7, 6);
#define ROTATE(v, n) _mm_or_si128(_mm_slli_epi32(v, n), _mm_srli_epi32(v, 32 - n))
    for (int i = 0; i < 2400000; i++) {
        a = _mm_add_epi32(a, b), d = _mm_xor_si128(d, a), d = ROTATE(d, 16);
        c = _mm_add_epi32(c, d), b = _mm_xor_si128(b, c), b = ROTATE(b, 12);
        a = _mm_add_epi32(a, b), d = _mm_xor_si128(d, a), d = ROTATE(d, 8);
        c = _mm_add_epi32(c, d), b = _mm_xor_si128(b, c), b = ROTATE(b, 7);
        b = _mm_shuffle_epi32(b, 0x39), c = _mm_shuffle_epi32(c, 0x4e), d = _mm_shuffle_epi32(d, 0x93);
    }
    return horizontal_sum(_mm_add_epi32(_mm_add_epi32(a, b), _mm_add_epi32(c, d)));
}

const struct benchmark simd_benchmarks[] = {
    {"simd/blend", blend},         {"simd/dot_product", dot_product}, {"simd/difference", difference},
    {"simd/find_byte", find_byte}, {"simd/cipher", cipher},           {0, 0},
};
