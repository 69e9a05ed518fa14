// Conditional branches that depend on data, and indirect branches.

#include "bench.h"

static uint32_t random_branches(void)
{
    uint32_t random = 11, a = 0, b = 0, c = 0;
    for (int i = 0; i < 9000000; i++) {
        uint32_t r = next_random(&random) >> 16;
        if (r & 1) {
            a += r;
            BARRIER();
            if (r & 2) {
                b ^= a;
                BARRIER();
            } else {
                c += b;
                BARRIER();
            }
        } else if (r & 4) {
            c -= a;
            BARRIER();
        } else {
            b += 3;
            BARRIER();
        }
    }
    return a ^ b ^ c;
}

static uint32_t binary_search(void)
{
    enum { COUNT = 4096 };
    uint32_t *keys = (uint32_t *)arena, random = 13, checksum = 0;
    for (uint32_t i = 0; i < COUNT; i++)
        keys[i] = i * 1048573u;
    for (int i = 0; i < 900000; i++) {
        uint32_t key = next_random(&random), low = 0, high = COUNT;
        while (low < high) {
            uint32_t middle = (low + high) / 2;
            if (keys[middle] < key)
                low = middle + 1;
            else
                high = middle;
            BARRIER();
        }
        checksum = mix(checksum, low);
    }
    return checksum;
}

// Splits a text into numbers, words, blanks and strings, as a compiler's front end does.
static uint32_t tokenizer(void)
{
    enum { COUNT = 100000 };
    static const char alphabet[] = "abcdefgh 0123456789 ijkl;\"(+mnop \n,)";
    uint32_t random = 17, numbers = 0, words = 0, strings = 0, marks = 0, value = 0;
    for (int i = 0; i < COUNT; i++)
        arena[i] = (uint8_t)alphabet[(next_random(&random) >> 16) % (sizeof alphabet - 1)];
    arena[COUNT] = 0;
    for (int round = 0; round < 100; round++) {
        const uint8_t *p = arena;
        while (*p) {
            if (*p >= '0' && *p <= '9') {
                for (value = 0; *p >= '0' && *p <= '9'; p++)
                    value = value * 10 + *p - '0';
                numbers = mix(numbers, value);
            } else if (*p >= 'a' && *p <= 'z') {
                for (value = 0; (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9'); p++)
                    value = value * 31 + *p;
                words = mix(words, value);
            } else if (*p == '"') {
                for (p++; *p && *p != '"' && *p != '\n'; p++)
                    strings++;
                if (*p)
                    p++;
            } else {
                marks += *p++ != ' ';
            }
        }
    }
    return numbers ^ words ^ mix(strings, marks);
}

const struct benchmark branch_benchmarks[] = {
    {"branch/random", random_branches}, {"branch/binary_search", binary_search}, {"branch/tokenizer", tokenizer}, {0, 0},
};

// Sixteen small functions, called in an order that no predictor of the last target gets right.
#define FUNCTION(n) static __attribute__((noinline)) uint32_t function_##n(uint32_t x) { return (x ^ n) + (x >> (n + 1)); }
FUNCTION(0) FUNCTION(1) FUNCTION(2) FUNCTION(3) FUNCTION(4) FUNCTION(5) FUNCTION(6) FUNCTION(7)
FUNCTION(8) FUNCTION(9) FUNCTION(10) FUNCTION(11) FUNCTION(12) FUNCTION(13) FUNCTION(14) FUNCTION(15)

static uint32_t (*const functions[16])(uint32_t) = {
    function_0, function_1, function_2,  function_3,  function_4,  function_5,  function_6,  function_7,
    function_8, function_9, function_10, function_11, function_12, function_13, function_14, function_15,
};

static uint32_t function_pointers(void)
{
    uint32_t random = 19, value = 1;
    for (int i = 0; i < 3000000; i++)
        value = functions[next_random(&random) >> 28](value);
    return value;
}

// The same call site nearly always reaches the same function, as with most virtual calls.
static uint32_t steady_pointer(void)
{
    uint32_t value = 1;
    for (uint32_t i = 0; i < 8000000; i++) {
        uint32_t (*function)(uint32_t) = functions[i % 1024 ? 3 : 4];
        OPAQUE(function);
        value = function(value + i);
    }
    return value;
}

// Direct-threaded code: each operation ends with an indirect jump of its own.
static uint32_t threaded_code(void)
{
    static const void *const operations[] = {&&add, &&xor, &&shift, &&decrement, &&loop, &&end};
    static const uint8_t program[] = {0, 1, 2, 0, 2, 1, 1, 0, 2, 3, 4};
    uint32_t value = 1, counter = 1500000;
    const uint8_t *ip = program;
#define NEXT goto *operations[*ip++]
    NEXT;
add:
    value += 0x9e3779b9u;
    NEXT;
xor:
    value ^= counter;
    NEXT;
shift:
    value = (value << 7) | (value >> 25);
    NEXT;
decrement:
    counter--;
    NEXT;
loop:
    ip = program;
    if (!counter)
        goto end;
    NEXT;
end:
    return value;
}

// Deep recursion through several call sites: returns go to many places.
static __attribute__((noinline)) uint32_t walk(uint32_t depth, uint32_t x)
{
    OPAQUE(depth);
    if (!depth)
        return x;
    switch (x & 3) {
    case 0: return walk(depth - 1, x * 5 + 1) + 1;
    case 1: return walk(depth - 1, x * 3 + 2) ^ x;
    case 2: return walk(depth - 1, x + 77) - 3;
    default: return walk(depth - 1, x >> 1) + depth;
    }
}

static uint32_t returns(void)
{
    uint32_t checksum = 0;
    for (uint32_t i = 0; i < 80000; i++)
        checksum = mix(checksum, walk(100, i));
    return checksum;
}

const struct benchmark indirect_benchmarks[] = {
    {"indirect/function_pointers", function_pointers},
    {"indirect/steady_pointer", steady_pointer},
    {"indirect/threaded_code", threaded_code},
    {"indirect/returns", returns},
    {0, 0},
};
