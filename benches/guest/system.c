// What programs ask the system for: system calls, processes, page faults, signals, pipes.

#include "bench.h"
#include "sys.h"

static uint32_t getpid_calls(void)
{
    uint32_t differences = 0;
    long self = syscall0(SYS_getpid);
    for (int i = 0; i < 200000; i++)
        differences += syscall0(SYS_getpid) != self;
    return differences;
}

static uint32_t wait_for(long child)
{
    int status = -1;
    syscall4(SYS_wait4, child, &status, 0, 0);
    return (uint32_t)status;
}

static uint32_t fork_exit(void)
{
    uint32_t checksum = 0;
    for (int i = 0; i < 50; i++) {
        long child = syscall0(SYS_fork);
        if (child == 0)
            exit_process(i & 127);
        checksum = mix(checksum, wait_for(child));
    }
    return checksum;
}

static uint32_t fork_exec(void)
{
    // /proc is not mounted in the guest, where this program is /init.
    static char *const arguments[] = {"/init", "--nothing", 0}, *const environment[] = {0};
    uint32_t checksum = 0;
    for (int i = 0; i < 30; i++) {
        long child = syscall0(SYS_fork);
        if (child == 0) {
            syscall3(SYS_execve, "/init", arguments, environment);
            syscall3(SYS_execve, "/proc/self/exe", arguments, environment);
            exit_process(1);
        }
        checksum += wait_for(child);
    }
    return checksum;
}

// First touches of fresh memory.
static uint32_t page_fault(void)
{
    enum { PAGES = 512 };
    uint32_t sum = 0;
    for (int round = 0; round < 14; round++) {
        uint8_t *fresh = map_anonymous(PAGES * 4096, PROT_READ | PROT_WRITE);
        for (uint32_t i = 0; i < PAGES; i++) {
            sum += fresh[i * 4096];
            fresh[i * 4096] = 1;
        }
        syscall2(SYS_munmap, fresh, PAGES * 4096);
    }
    return sum;
}

// The handler returns through here. `rt_sigreturn` wants the stack as the kernel left it, so there is no function around it.
void return_from_signal(void);
#ifdef __x86_64__
__asm__("return_from_signal:\n\tmovl $15, %eax\n\tsyscall\n");
#else
__asm__("return_from_signal:\n\tmovl $173, %eax\n\tint $0x80\n");
#endif

// SA_SIGINFO makes the i386 kernel build the frame that rt_sigreturn takes down.
static void handle(int signal, void (*handler)(int))
{
    struct kernel_sigaction action = {handler, SA_RESTORER | SA_SIGINFO, return_from_signal, 0};
    syscall4(SYS_rt_sigaction, signal, &action, 0, 8);
}

static volatile uint32_t signals;

static void count_signal(int signal)
{
    signals += (uint32_t)signal;
}

static uint32_t signal_self(void)
{
    signals = 0;
    handle(SIGUSR1, count_signal);
    long self = syscall0(SYS_getpid);
    for (int i = 0; i < 4000; i++)
        syscall2(SYS_kill, self, SIGUSR1);
    return signals;
}

static uint8_t *guarded;

static void open_guard(int signal)
{
    signals += (uint32_t)signal;
    syscall3(SYS_mprotect, guarded, 4096, PROT_READ | PROT_WRITE);
}

// Writes to a protected page whose handler unprotects it: what collectors and debuggers do.
static uint32_t protection_fault(void)
{
    signals = 0;
    guarded = map_anonymous(4096, PROT_READ | PROT_WRITE);
    handle(SIGSEGV, open_guard);
    for (int i = 0; i < 2500; i++) {
        syscall3(SYS_mprotect, guarded, 4096, PROT_READ);
        *(volatile uint8_t *)guarded = (uint8_t)i;
    }
    handle(SIGSEGV, 0);
    syscall2(SYS_munmap, guarded, 4096);
    return signals;
}

// One byte to and fro between two processes.
static uint32_t pipe_ping_pong(void)
{
    int there[2], back[2];
    uint8_t byte = 0;
    syscall1(SYS_pipe, there);
    syscall1(SYS_pipe, back);
    enum { TURNS = 1600 };
    long child = syscall0(SYS_fork);
    if (child == 0) {
        for (int i = 0; i < TURNS; i++) {
            syscall3(SYS_read, there[0], &byte, 1);
            byte++;
            syscall3(SYS_write, back[1], &byte, 1);
        }
        exit_process(0);
    }
    for (int i = 0; i < TURNS; i++) {
        syscall3(SYS_write, there[1], &byte, 1);
        syscall3(SYS_read, back[0], &byte, 1);
    }
    return byte + wait_for(child);
}

// System calls that move data through the kernel.
static uint32_t pipe_transfer(void)
{
    int ends[2];
    uint32_t moved = 0;
    syscall1(SYS_pipe, ends);
    for (int i = 0; i < 1500; i++) {
        moved += (uint32_t)syscall3(SYS_write, ends[1], arena, 16384);
        moved -= (uint32_t)syscall3(SYS_read, ends[0], arena + 65536, 16384) - 1;
    }
    return moved;
}

static uint32_t yield(void)
{
    uint32_t sum = 0;
    for (int i = 0; i < 100000; i++)
        sum += (uint32_t)syscall0(SYS_sched_yield);
    return sum;
}

const struct benchmark system_benchmarks[] = {
    {"system/getpid", getpid_calls},
    {"system/fork_exit", fork_exit},
    {"system/fork_exec", fork_exec},
    {"system/page_fault", page_fault},
    {"system/signal", signal_self},
    {"system/protection_fault", protection_fault},
    {"system/pipe_ping_pong", pipe_ping_pong},
    {"system/pipe_transfer", pipe_transfer},
    {"system/yield", yield},
    {0, 0},
};
