// Reads or writes a block device in one way, between two lines that say when it begins and when it is done (x86-64 only):
//
//   disk DEVICE read|write direct|buffered sequential|random BLOCK COUNT PASSES
//
// BLOCK is in bytes, and COUNT the number of blocks, on which random accesses spread as well; as many are read or written PASSES times. Reads do not find anything in the guest's
// memory; writes end when the device says that they are durable.

#include "../sys.h"

enum { SYS_open = 2, SYS_pread64 = 17, SYS_pwrite64 = 18, SYS_fsync = 74, SYS_sync = 162 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_DIRECT = 0x4000 };
enum { LARGEST = 1 << 20 };

static volatile uint8_t buffer[LARGEST] __attribute__((aligned(4096)));
static volatile uint8_t between[LARGEST] __attribute__((aligned(4096)));

static size_t length(const char *text)
{
    size_t count = 0;
    while (text[count])
        count++;
    return count;
}

static void say(const char *line)
{
    syscall3(SYS_write, 1, line, length(line));
}

static uint64_t number(const char *digits)
{
    uint64_t value = 0;
    while (*digits >= '0' && *digits <= '9')
        value = value * 10 + (uint64_t)(*digits++ - '0');
    return value;
}

static _Noreturn void fail(const char *why)
{
    say(why);
    exit_process(1);
}

// What earlier rows have left in the guest's memory must not serve this one.
static void forget_pages(void)
{
    syscall0(SYS_sync);
    long file = syscall3(SYS_open, "/proc/sys/vm/drop_caches", O_WRONLY, 0);
    if (file < 0 || syscall3(SYS_write, file, "3", 1) != 1)
        fail("D:failed to drop caches\n");
}

// Fills the buffer, no two pages of which are neighbours in the guest's memory then, as in a machine that has run for a while. Else it
// were for what is free after the boot to say how many are, and a transfer of neighbours is a few long runs: far less work.
static void scatter_buffer(size_t length)
{
    for (size_t page = 0; page < length; page += 4096)
        buffer[page] = between[page] = 1;
    for (size_t i = 0; i < length; i++)
        buffer[i] = (uint8_t)(i * 7 + 1);
}

// What _start below hands over: argc, argv... as the kernel put them on the stack.
__attribute__((used)) void start_with_stack(long *stack)
{
    char **argument = (char **)(stack + 2);
    if (stack[0] != 8)
        fail("D:failed: seven arguments are needed\n");
    int writes = argument[1][0] == 'w', is_random = argument[3][0] == 'r';
    int flags = (writes ? O_WRONLY : O_RDONLY) | (argument[2][0] == 'd' ? O_DIRECT : 0);
    uint64_t block = number(argument[4]), count = number(argument[5]), passes = number(argument[6]);
    long file = syscall3(SYS_open, argument[0], flags, 0);
    if (file < 0 || block == 0 || block > LARGEST || count == 0)
        fail("D:failed to open\n");
    scatter_buffer(block);
    forget_pages();

    say("D:begin\n");
    uint64_t state = 88172645463325252u;   // xorshift64
    for (uint64_t i = 0; i < count * passes; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        uint64_t at = (is_random ? state : i) % count * block;
        long done = syscall4(writes ? SYS_pwrite64 : SYS_pread64, file, buffer, block, at);
        if (done != (long)block)
            fail("D:failed\n");
    }
    if (writes && syscall1(SYS_fsync, file) != 0)
        fail("D:failed to flush\n");
    say("D:end\n");
    exit_process(0);
}

// The ABI wants the stack aligned to 16 bytes at a call.
__asm__(".globl _start\n_start:\n\txorl %ebp, %ebp\n\tmovq %rsp, %rdi\n\tandq $-16, %rsp\n\tcall start_with_stack\n");
