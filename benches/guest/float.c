// Floating point with SSE: scalar, packed, and the polynomials that mathematical functions are made of.

#include "bench.h"
#include <emmintrin.h>

static uint32_t nbody(void)
{
    enum { N = 5 };
    double x[N], y[N], z[N], vx[N], vy[N], vz[N], mass[N];
    for (int i = 0; i < N; i++) {
        x[i] = i * 1.5 + 0.25, y[i] = i * i * 0.5 - 1.0, z[i] = 2.0 - i * 0.75;
        vx[i] = 0.01 * i, vy[i] = 0.02, vz[i] = -0.01 * i, mass[i] = 1.0 / (i + 1);
    }
    for (int step = 0; step < 60000; step++) {
        for (int i = 0; i < N; i++)
            for (int j = i + 1; j < N; j++) {
                double dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
                double square = dx * dx + dy * dy + dz * dz + 0.01;
                double force = 0.001 / (square * _mm_cvtsd_f64(_mm_sqrt_sd(_mm_setzero_pd(), _mm_set_sd(square))));
                vx[i] -= dx * mass[j] * force, vy[i] -= dy * mass[j] * force, vz[i] -= dz * mass[j] * force;
                vx[j] += dx * mass[i] * force, vy[j] += dy * mass[i] * force, vz[j] += dz * mass[i] * force;
            }
        for (int i = 0; i < N; i++)
            x[i] += 0.001 * vx[i], y[i] += 0.001 * vy[i], z[i] += 0.001 * vz[i];
    }
    return mix_double(mix_double(0, x[0]), y[N - 1]);
}

static uint32_t mandelbrot(void)
{
    uint32_t checksum = 0;
    for (int row = 0; row < 280; row++)
        for (int column = 0; column < 280; column++) {
            double cr = column * 0.0107 - 2.0, ci = row * 0.0089 - 1.25, zr = 0.0, zi = 0.0;
            uint32_t n = 0;
            for (; n < 100 && zr * zr + zi * zi < 4.0; n++) {
                double t = zr * zr - zi * zi + cr;
                zi = 2.0 * zr * zi + ci;
                zr = t;
            }
            checksum += n;
        }
    return checksum;
}

static uint32_t matrix(void)
{
    enum { N = 64 };
    double(*a)[N] = (double(*)[N])arena, (*b)[N] = a + N, (*c)[N] = b + N;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            a[i][j] = (i + j) * 0.0625, b[i][j] = (i - j) * 0.03125;
    for (int round = 0; round < 32; round++)
        for (int i = 0; i < N; i++)
            for (int j = 0; j < N; j++) {
                double sum = 0.0;
                for (int k = 0; k < N; k++)
                    sum += a[i][k] * b[k][j];
                c[i][j] = sum;
            }
    return mix_double(mix_double(0, c[3][5]), c[N - 1][N - 2]);
}

static uint32_t convert(void)
{
    uint32_t random = 23, checksum = 0;
    float scale = 0.125f;
    for (int i = 0; i < 3000000; i++) {
        int32_t n = (int32_t)(next_random(&random) >> 12);
        float f = (float)n * scale;
        double d = (double)f + 0.5;
        checksum = mix(checksum, (uint32_t)(int32_t)d + (d > 50000.0 ? 1 : 0));
    }
    return checksum;
}

const struct benchmark float_benchmarks[] = {
    {"float/nbody", nbody}, {"float/mandelbrot", mandelbrot}, {"float/matrix", matrix}, {"float/convert", convert}, {0, 0},
};

static uint32_t packed_single(void)
{
    enum { COUNT = 4096 };
    float *x = (float *)arena, *y = x + COUNT;
    for (int i = 0; i < COUNT; i++)
        x[i] = (float)i * 0.001f, y[i] = 1.0f;
    __m128 a = _mm_set1_ps(0.5f), b = _mm_set1_ps(0.25f);
    for (int round = 0; round < 1500; round++)
        for (int i = 0; i < COUNT; i += 4) {
            __m128 v = _mm_add_ps(_mm_mul_ps(_mm_load_ps(x + i), a), _mm_mul_ps(_mm_load_ps(y + i), b));
            v = _mm_min_ps(_mm_max_ps(v, _mm_setzero_ps()), _mm_set1_ps(8.0f));
            _mm_store_ps(y + i, v);
        }
    return mix_double(mix_double(0, y[100]), y[COUNT - 1]);
}

static uint32_t packed_double(void)
{
    enum { COUNT = 2048 };
    double *x = (double *)arena, *y = x + COUNT;
    for (int i = 0; i < COUNT; i++)
        x[i] = i * 0.5, y[i] = 1.0 / (i + 1);
    __m128d sum = _mm_setzero_pd();
    for (int round = 0; round < 3000; round++)
        for (int i = 0; i < COUNT; i += 2)
            sum = _mm_add_pd(sum, _mm_mul_pd(_mm_load_pd(x + i), _mm_loadu_pd(y + i)));
    return mix_double(mix_double(0, _mm_cvtsd_f64(sum) * 0.001), _mm_cvtsd_f64(_mm_unpackhi_pd(sum, sum)) * 0.001);
}

// A 4x4 matrix times vectors: shuffles, multiplications, additions.
static uint32_t packed_transform(void)
{
    enum { COUNT = 1024 };
    float *points = (float *)arena;
    for (int i = 0; i < COUNT * 4; i++)
        points[i] = (float)(i % 17) * 0.25f;
    __m128 m0 = _mm_setr_ps(0.5f, 0.1f, -0.2f, 0.0f), m1 = _mm_setr_ps(-0.1f, 0.6f, 0.1f, 0.0f);
    __m128 m2 = _mm_setr_ps(0.2f, -0.1f, 0.5f, 0.0f), m3 = _mm_setr_ps(0.25f, 0.5f, 0.75f, 1.0f);
    for (int round = 0; round < 1000; round++)
        for (int i = 0; i < COUNT; i++) {
            __m128 p = _mm_load_ps(points + 4 * i);
            __m128 r = _mm_mul_ps(_mm_shuffle_ps(p, p, 0x00), m0);
            r = _mm_add_ps(r, _mm_mul_ps(_mm_shuffle_ps(p, p, 0x55), m1));
            r = _mm_add_ps(r, _mm_mul_ps(_mm_shuffle_ps(p, p, 0xaa), m2));
            _mm_store_ps(points + 4 * i, _mm_add_ps(r, m3));
        }
    return mix_double(mix_double(0, points[41]), points[COUNT * 4 - 3]);
}

static uint32_t packed_divide(void)
{
    __m128d d = _mm_setr_pd(1.5, 2.5), sum = _mm_setzero_pd();
    for (int i = 0; i < 3600000; i++) {
        d = _mm_sqrt_pd(_mm_add_pd(_mm_div_pd(_mm_set1_pd(3.0), d), _mm_set1_pd(1.0)));
        sum = _mm_add_pd(sum, d);
    }
    return mix_double(mix_double(0, _mm_cvtsd_f64(sum) * 0.01), _mm_cvtsd_f64(d));
}

const struct benchmark packed_benchmarks[] = {
    {"packed/single", packed_single}, {"packed/double", packed_double}, {"packed/transform", packed_transform},
    {"packed/divide", packed_divide}, {0, 0},
};

// Taylor polynomials after a reduction of the range; the accuracy is poor, the operations are those of real libraries.
static double exponential(double x)
{
    int32_t whole = (int32_t)(x * 1.4426950408889634);
    double r = x - whole * 0.6931471805599453, sum = 1.0 / 5040.0;
    static const double c[] = {1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0};
    for (int i = 0; i < 7; i++)
        sum = sum * r + c[i];
    union { double d; uint64_t bits; } scale = {.bits = (uint64_t)(uint32_t)(1023 + whole) << 52};
    return sum * scale.d;
}

static double sine(double x)
{
    int32_t turns = (int32_t)(x * 0.15915494309189535);
    double r = x - turns * 6.283185307179586;
    if (r > 3.141592653589793)
        r -= 6.283185307179586;
    double square = r * r, sum = 1.0 / 6227020800.0;
    static const double c[] = {-1.0 / 39916800.0, 1.0 / 362880.0, -1.0 / 5040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0};
    for (int i = 0; i < 6; i++)
        sum = sum * square + c[i];
    return sum * r;
}

static double logarithm(double x)
{
    union { double d; uint64_t bits; } u = {.d = x};
    int32_t exponent = (int32_t)(u.bits >> 52) - 1023;
    u.bits = (u.bits & 0xfffffffffffffull) | (1023ull << 52);
    double t = (u.d - 1.0) / (u.d + 1.0), square = t * t, sum = 1.0 / 11.0;
    static const double c[] = {1.0 / 9.0, 1.0 / 7.0, 0.2, 1.0 / 3.0, 1.0};
    for (int i = 0; i < 5; i++)
        sum = sum * square + c[i];
    return 2.0 * t * sum + exponent * 0.6931471805599453;
}

static uint32_t libm_exp(void)
{
    double sum = 0.0;
    for (int i = 0; i < 800000; i++)
        sum += exponential((i % 2000) * 0.002);
    return mix_double(0, sum * 0.001);
}

static uint32_t libm_sin(void)
{
    double sum = 0.0;
    for (int i = 0; i < 800000; i++)
        sum += sine((i % 60000) * 0.01);
    return mix_double(0, sum);
}

static uint32_t libm_log(void)
{
    double sum = 0.0;
    for (int i = 1; i < 800000; i++)
        sum += logarithm(i * 0.37);
    return mix_double(0, sum * 0.001);
}

static uint32_t libm_power(void)
{
    double sum = 0.0;
    for (int i = 1; i < 400000; i++)
        sum += exponential(logarithm((i % 30000) * 0.001 + 0.5) * 1.5);
    return mix_double(0, sum * 0.001);
}

const struct benchmark libm_benchmarks[] = {
    {"libm/exp", libm_exp}, {"libm/sin", libm_sin}, {"libm/log", libm_log}, {"libm/power", libm_power}, {0, 0},
};
