// Runs all benchmarks, or those whose "group/name" begins with an argument that holds a slash, and powers the machine off if it is process 1.

#include "bench.h"
#include "sys.h"

uint8_t arena[ARENA_BYTES] __attribute__((aligned(4096)));

// The compiler calls these by itself for larger copies.
void *memcpy(void *restrict to, const void *restrict from, size_t count)
{
    void *start = to;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return start;
}

void *memset(void *to, int value, size_t count)
{
    void *start = to;
    __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
    return start;
}

static size_t length(const char *text)
{
    size_t count = 0;
    while (text[count])
        count++;
    return count;
}

static int begins_with(const char *text, const char *start)
{
    while (*start)
        if (*text++ != *start++)
            return 0;
    return 1;
}

static int has_slash(const char *text)
{
    while (*text && *text != '/')
        text++;
    return *text == '/';
}

// Writes to the first serial port itself, past the kernel's buffers: what the guest does next begins when the line is out.
static void serial_out(const char *bytes, size_t count)
{
    enum { COM1 = 0x3f8, LSR = COM1 + 5, THRE = 0x20 };   // 16550: line status, transmitter holding register empty
    syscall1(SYS_iopl, 3);
    for (size_t i = 0; i < count; i++) {
        uint8_t status;
        do
            __asm__ volatile("inb %1, %0" : "=a"(status) : "Nd"((uint16_t)LSR));
        while (!(status & THRE));
        __asm__ volatile("outb %0, %1" : : "a"(bytes[i]), "Nd"((uint16_t)COM1));
    }
    syscall1(SYS_iopl, 0);
}

static int is_init;

static void print(const char *a, const char *b, const char *c)
{
    char line[160];
    size_t used = 0;
    const char *parts[] = {a, b, c, "\n"};
    for (int i = 0; i < 4; i++) {
        size_t bytes = length(parts[i]);
        memcpy(line + used, parts[i], bytes);
        used += bytes;
    }
    if (is_init)
        serial_out(line, used);
    else
        syscall3(SYS_write, 1, line, used);
}

static void run(const struct benchmark *b)
{
    static const char digits[] = "0123456789abcdef";
    char end[] = " end 00000000";
    print("B:", b->name, " start");
    uint32_t checksum = b->run();
    for (int i = 0; i < 8; i++)
        end[5 + i] = digits[(checksum >> (28 - 4 * i)) & 15];
    print("B:", b->name, end);
}

static const struct benchmark *const groups[] = {
    integer_benchmarks, branch_benchmarks, indirect_benchmarks, float_benchmarks, packed_benchmarks, libm_benchmarks,
    x87_benchmarks, simd_benchmarks, memory_benchmarks, system_benchmarks, smc_benchmarks,
};

// What _start below hands over: argc, argv... as the kernel put them on the stack.
__attribute__((used)) void start_with_stack(long *stack)
{
    long argc = stack[0];
    char **argv = (char **)(stack + 1);

    // The exec benchmark executes this program again.
    if (argc == 2 && begins_with(argv[1], "--nothing"))
        exit_process(0);

    is_init = syscall0(SYS_getpid) == 1;
    print("B:begin", "", "");
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++)
        for (const struct benchmark *b = groups[g]; b->name; b++) {
            // A boot loader may have added words of its own to the kernel's command line, which passes on what it does not know:
            // only words with a slash select.
            int selected = 0, selections = 0;
            for (long i = 1; i < argc; i++)
                if (has_slash(argv[i])) {
                    selections++;
                    selected += begins_with(b->name, argv[i]);
                }
            if (selected || !selections)
                run(b);
        }
    print("B:done", "", "");
    if (is_init) {
        enum { MAGIC_1 = 0xfee1dead, MAGIC_2 = 672274793, POWER_OFF = 0x4321fedc };
        syscall4(SYS_reboot, MAGIC_1, MAGIC_2, POWER_OFF, 0);
    }
    exit_process(0);
}

// The ABI wants the stack aligned to 16 bytes at a call.
#ifdef __x86_64__
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\tcall start_with_stack\n");
#else
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tmovl %esp, %eax\n\tandl $-16, %esp\n\tsubl $12, %esp\n\tpushl %eax\n"
        "\tcall start_with_stack\n");
#endif
