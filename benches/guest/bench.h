// The in-guest benchmark: a static program without a C library, so that all machines execute the very same instructions (a C library
// chooses its string and math functions by CPUID). It runs as process 1 of a Linux guest, or natively for comparison.
//
// Each benchmark does a fixed amount of work. The program sends a line to the serial port before and after each; whoever reads the console takes the
// times with the host's clock, because a guest's clock is part of what is being measured:
//
//     B:integer/sieve start
//     B:integer/sieve end 8d0e7a31          (a checksum of the results: equal on every correct machine)

#pragma once
#include <stddef.h>
#include <stdint.h>

struct benchmark {
    const char *name;        // "group/name"
    uint32_t (*run)(void);   // returns a checksum
};

// One table per group, ended by an entry without a name.
extern const struct benchmark integer_benchmarks[], branch_benchmarks[], indirect_benchmarks[], float_benchmarks[],
    packed_benchmarks[], libm_benchmarks[], x87_benchmarks[], simd_benchmarks[], memory_benchmarks[], system_benchmarks[],
    smc_benchmarks[];

// Memory for one benchmark at a time, larger than a second-level cache; its content is what the last one left there.
#define ARENA_BYTES (16u << 20)
extern uint8_t arena[ARENA_BYTES] __attribute__((aligned(4096)));

// Keeps the compiler from computing at compile time, from removing and from merging what is measured.
#define OPAQUE(value) __asm__ volatile("" : "+r"(value))
#define BARRIER() __asm__ volatile("" ::: "memory")

// A linear congruential generator (Numerical Recipes' constants); the high bits are the good ones.
static inline uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state;
}

static inline uint32_t mix(uint32_t checksum, uint32_t value)
{
    return (checksum ^ value) * 16777619u;
}

// Floating-point results enter checksums as integers, rounded so that they do not depend on how intermediate results are kept.
static inline uint32_t mix_double(uint32_t checksum, double value)
{
    return mix(checksum, (uint32_t)(int32_t)(value * 65536.0));
}
