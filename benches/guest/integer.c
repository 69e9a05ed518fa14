// Integer code as compilers make it: loops, tables, recursion, shifts, divisions.

#include "bench.h"

static uint32_t sieve(void)
{
    enum { LIMIT = 400000 };
    uint32_t checksum = 0;
    for (int round = 0; round < 24; round++) {
        for (uint32_t i = 0; i < LIMIT; i++)
            arena[i] = 1;
        uint32_t primes = 0;
        for (uint32_t i = 2; i < LIMIT; i++)
            if (arena[i]) {
                primes++;
                for (uint32_t j = i + i; j < LIMIT; j += i)
                    arena[j] = 0;
            }
        checksum = mix(checksum, primes);
    }
    return checksum;
}

static uint32_t crc32(void)
{
    static uint32_t table[256];
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int bit = 0; bit < 8; bit++)
            c = c & 1 ? (c >> 1) ^ 0xedb88320u : c >> 1;
        table[i] = c;
    }
    uint32_t random = 1, crc = 0xffffffffu;
    for (int i = 0; i < 65536; i++)
        arena[i] = next_random(&random) >> 24;
    for (int round = 0; round < 240; round++)
        for (int i = 0; i < 65536; i++)
            crc = table[(crc ^ arena[i]) & 255] ^ (crc >> 8);
    return ~crc;
}

static void sort(int32_t *low, int32_t *high)
{
    while (low < high) {
        int32_t pivot = low[(high - low) / 2], *i = low, *j = high;
        while (i <= j) {
            while (*i < pivot)
                i++;
            while (*j > pivot)
                j--;
            if (i <= j) {
                int32_t swap = *i;
                *i++ = *j;
                *j-- = swap;
            }
        }
        sort(low, j);
        low = i;
    }
}

static uint32_t quicksort(void)
{
    enum { COUNT = 60000 };
    int32_t *data = (int32_t *)arena;
    uint32_t random = 7, checksum = 0;
    for (int round = 0; round < 12; round++) {
        for (int i = 0; i < COUNT; i++)
            data[i] = (int32_t)next_random(&random);
        sort(data, data + COUNT - 1);
        for (int i = 1; i < COUNT; i++)
            checksum += data[i - 1] > data[i];
        checksum = mix(checksum, (uint32_t)data[COUNT / 2]);
    }
    return checksum;
}

static inline uint32_t rotate_right(uint32_t value, int count)
{
    return (value >> count) | (value << (32 - count));
}

// The compression function of SHA-256 (FIPS 180-4, 6.2.2). The constants are any random words: only the work counts.
static void compress(uint32_t state[8], const uint32_t block[16], const uint32_t constants[64])
{
    uint32_t w[64];
    for (int t = 0; t < 16; t++)
        w[t] = block[t];
    for (int t = 16; t < 64; t++) {
        uint32_t s0 = rotate_right(w[t - 15], 7) ^ rotate_right(w[t - 15], 18) ^ (w[t - 15] >> 3);
        uint32_t s1 = rotate_right(w[t - 2], 17) ^ rotate_right(w[t - 2], 19) ^ (w[t - 2] >> 10);
        w[t] = w[t - 16] + s0 + w[t - 7] + s1;
    }
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    for (int t = 0; t < 64; t++) {
        uint32_t s1 = rotate_right(e, 6) ^ rotate_right(e, 11) ^ rotate_right(e, 25);
        uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + constants[t] + w[t];
        uint32_t s0 = rotate_right(a, 2) ^ rotate_right(a, 13) ^ rotate_right(a, 22);
        uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d, state[4] += e, state[5] += f, state[6] += g, state[7] += h;
}

static uint32_t sha256(void)
{
    uint32_t state[8] = {1, 2, 3, 4, 5, 6, 7, 8}, block[16], constants[64], random = 3;
    for (int i = 0; i < 64; i++)
        constants[i] = next_random(&random);
    for (int round = 0; round < 120000; round++) {
        for (int i = 0; i < 16; i++)
            block[i] = (uint32_t)(round * 16 + i);
        compress(state, block, constants);
    }
    return state[0] ^ state[7];
}

// A stack machine that counts primes by trial division: byte code in a switch.
static uint32_t bytecode_vm(void)
{
    enum { PUSH, LOAD, STORE, ADD, MOD, LESS, JUMP_ZERO, JUMP, HALT };
    enum { N, D, PRIMES };
    static const uint8_t program[] = {
        /*  0 */ PUSH, 2, STORE, N,
        /*  4 */ LOAD, N, PUSH, 250, LESS, JUMP_ZERO, 49,
        /* 11 */ PUSH, 2, STORE, D,
        /* 15 */ LOAD, D, LOAD, N, LESS, JUMP_ZERO, 33,
        /* 22 */ LOAD, N, LOAD, D, MOD, JUMP_ZERO, 40,
        /* 29 */ JUMP, 50, HALT, HALT,
        /* 33 */ LOAD, PRIMES, PUSH, 1, ADD, STORE, PRIMES,
        /* 40 */ LOAD, N, PUSH, 1, ADD, STORE, N, JUMP, 4,
        /* 49 */ HALT,
        /* 50 */ LOAD, D, PUSH, 1, ADD, STORE, D, JUMP, 15,
    };
    uint32_t checksum = 0;
    for (int round = 0; round < 120; round++) {
        uint32_t stack[16], variables[3] = {0}, *top = stack;
        const uint8_t *ip = program;
        for (int running = 1; running;) {
            switch (*ip++) {
            case PUSH: *top++ = *ip++; break;
            case LOAD: *top++ = variables[*ip++]; break;
            case STORE: variables[*ip++] = *--top; break;
            case ADD: top--; top[-1] += *top; break;
            case MOD: top--; top[-1] %= *top; break;
            case LESS: top--; top[-1] = top[-1] < *top; break;
            case JUMP_ZERO: ip = *--top ? ip + 1 : program + *ip; break;
            case JUMP: ip = program + *ip; break;
            default: running = 0;
            }
        }
        checksum = mix(checksum, variables[PRIMES]);
    }
    return checksum;
}

static __attribute__((noinline)) uint32_t fib_of(uint32_t n)
{
    OPAQUE(n);
    return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}

static uint32_t fib(void)
{
    return fib_of(34);
}

static uint32_t divide(void)
{
    uint32_t random = 5, checksum = 0;
    for (int i = 0; i < 1000000; i++) {
        uint32_t a = next_random(&random) >> 8, b = (next_random(&random) >> 12) | 1;
        while (b) {
            uint32_t rest = a % b;
            a = b, b = rest;
        }
        checksum = mix(checksum, a);
    }
    return checksum;
}

const struct benchmark integer_benchmarks[] = {
    {"integer/sieve", sieve},   {"integer/crc32", crc32},           {"integer/quicksort", quicksort},
    {"integer/sha256", sha256}, {"integer/bytecode_vm", bytecode_vm}, {"integer/fib", fib},
    {"integer/divide", divide}, {0, 0},
};
