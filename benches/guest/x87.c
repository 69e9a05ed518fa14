// The x87 unit: 80-bit arithmetic, its own transcendental functions, conversions and comparisons.

#include "bench.h"

static uint32_t arithmetic(void)
{
    long double x = 0.5L, y = 1.25L, sum = 0.0L;
    for (int i = 0; i < 600000; i++) {
        long double t = x * y - 0.75L * x;
        y = y + (t - y) * 0.125L;
        x = 3.5L * x * (1.0L - x);
        sum += t * y;
    }
    return mix_double(mix_double(0, (double)(sum * 0.001L)), (double)y);
}

static uint32_t divide_sqrt(void)
{
    long double x = 2.0L;
    for (int i = 0; i < 1200000; i++) {
        __asm__ volatile("fsqrt" : "+t"(x));
        x = 1.0L + 1.0L / x;
    }
    return mix_double(0, (double)x);
}

static uint32_t transcendental(void)
{
    long double sum = 0.0L;
    for (int i = 1; i < 110000; i++) {
        long double x = (i % 12000 + 1) * 0.001L, s, c, l, e;
        __asm__("fsincos" : "=t"(c), "=u"(s) : "0"(x));
        __asm__("fyl2x" : "=t"(l) : "0"(x), "u"(1.0L) : "st(1)");
        __asm__("f2xm1" : "=t"(e) : "0"(x * 0.05L));
        sum += s * c + l - e;
    }
    return mix_double(0, (double)(sum * 0.01L));
}

static uint32_t convert_extended(void)
{
    uint32_t checksum = 0;
    int32_t n = 12345;
    for (int i = 0; i < 1500000; i++) {
        long double x;
        int32_t rounded;
        __asm__ volatile("fildl %1" : "=t"(x) : "m"(n));
        x = x * 0.75L + 0.3L;
        __asm__ volatile("fistpl %0" : "=m"(rounded) : "t"(x) : "st");
        n = (rounded * 7 + i) & 0xfffff;
        checksum = mix(checksum, (uint32_t)rounded);
    }
    return checksum;
}

static uint32_t compare(void)
{
    long double *data = (long double *)arena;
    uint32_t random = 29, checksum = 0;
    for (int i = 0; i < 1000; i++)
        data[i] = (int32_t)next_random(&random) * 0.001L;
    for (int round = 0; round < 3000; round++) {
        long double largest = -1e30L;
        for (int i = 0; i < 1000; i++)
            if (data[i] > largest) {
                largest = data[i];
                checksum = mix(checksum, (uint32_t)i);
            }
        data[round % 1000] = -data[round % 1000];
    }
    return checksum;
}

const struct benchmark x87_benchmarks[] = {
    {"x87/arithmetic", arithmetic}, {"x87/divide_sqrt", divide_sqrt}, {"x87/transcendental", transcendental},
    {"x87/convert", convert_extended},       {"x87/compare", compare},         {0, 0},
};
