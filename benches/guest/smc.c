// Self-modifying code: what a just-in-time compiler in the guest does to an emulator's caches of decoded or compiled code.

#include "bench.h"
#include "sys.h"

typedef uint32_t (*function)(void);

enum { CODE_BYTES = 64 << 10 };

static uint8_t *code;

static void map_code(void)
{
    if (!code)
        code = map_anonymous(CODE_BYTES, PROT_READ | PROT_WRITE | PROT_EXEC);
}

static void put32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

// mov eax, value; ret
static void emit_constant(uint8_t *at, uint32_t value)
{
    at[0] = 0xb8;
    put32(at + 1, value);
    at[5] = 0xc3;
}

// Changes an operand of a function before each call, as inline caches do.
static uint32_t patch_operand(void)
{
    map_code();
    emit_constant(code, 0);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 16000; i++) {
        *(volatile uint8_t *)(code + 1) = (uint8_t)i;
        BARRIER();
        sum = mix(sum, ((function)(uintptr_t)code)());
    }
    return sum;
}

// Fills a buffer with functions, runs each a few times, and starts over: a compiler whose code buffer is full.
static uint32_t regenerate(void)
{
    map_code();
    uint32_t sum = 0;
    for (uint32_t round = 0; round < 14; round++) {
        for (uint32_t at = 0; at < CODE_BYTES; at += 64)
            emit_constant(code + at, at ^ round);
        BARRIER();
        for (int repeat = 0; repeat < 4; repeat++)
            for (uint32_t at = 0; at < CODE_BYTES; at += 64)
                sum = mix(sum, ((function)(uintptr_t)(code + at))());
    }
    return sum;
}

// Data that lies in the same page as running code, but that is not code.
static uint32_t data_beside_code(void)
{
    map_code();
    emit_constant(code, 77);
    volatile uint32_t *counter = (volatile uint32_t *)(code + 2048);
    *counter = 0;
    for (int i = 0; i < 150000; i++)
        *counter += ((function)(uintptr_t)code)();
    return *counter;
}

// The code writes into its own next instruction: mov byte [rip/abs target], al; target: mov eax, imm32; ret.
static uint32_t modify_next(void)
{
    map_code();
    uint8_t *at = code + 4096;
#ifdef __x86_64__
    static const uint8_t store[] = {0x89, 0xf8, 0x88, 0x05, 1, 0, 0, 0};   // mov eax, edi; mov [rip + 1], al
    for (size_t i = 0; i < sizeof store; i++)
        at[i] = store[i];
    emit_constant(at + sizeof store, 0);
#else
    static const uint8_t store[] = {0x8b, 0x44, 0x24, 0x04, 0xa2};         // mov eax, [esp + 4]; mov [absolute], al
    for (size_t i = 0; i < sizeof store; i++)
        at[i] = store[i];
    put32(at + 5, (uint32_t)(uintptr_t)(at + 10));
    emit_constant(at + 9, 0);
#endif
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 8000; i++)
        sum = mix(sum, ((uint32_t(*)(uint32_t))(uintptr_t)at)(i));
    return sum;
}

const struct benchmark smc_benchmarks[] = {
    {"smc/patch_operand", patch_operand}, {"smc/regenerate", regenerate},
    {"smc/data_beside_code", data_beside_code}, {"smc/modify_next", modify_next}, {0, 0},
};
