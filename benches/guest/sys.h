// The Linux system calls that the benchmark needs, by number (arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl).

#pragma once
#include <stddef.h>
#include <stdint.h>

#ifdef __x86_64__
enum {
    SYS_read = 0, SYS_write = 1, SYS_mmap = 9, SYS_mprotect = 10, SYS_munmap = 11, SYS_rt_sigaction = 13, SYS_rt_sigreturn = 15,
    SYS_sched_yield = 24, SYS_getpid = 39, SYS_fork = 57, SYS_execve = 59, SYS_exit = 60, SYS_wait4 = 61, SYS_kill = 62,
    SYS_pipe = 22, SYS_reboot = 169, SYS_iopl = 172,
};

static inline long syscall6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#else
enum {
    SYS_read = 3, SYS_write = 4, SYS_mmap = 192, SYS_mprotect = 125, SYS_munmap = 91, SYS_rt_sigaction = 174, SYS_rt_sigreturn = 173,
    SYS_sched_yield = 158, SYS_getpid = 20, SYS_fork = 2, SYS_execve = 11, SYS_exit = 1, SYS_wait4 = 114, SYS_kill = 37,
    SYS_pipe = 42, SYS_reboot = 88, SYS_iopl = 110,
};

static inline long syscall6(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    // EBP carries the sixth argument and cannot be named in a constraint: it goes through the stack.
    __asm__ volatile("pushl %[f]\n\tpushl %%ebp\n\tmovl 4(%%esp), %%ebp\n\tint $0x80\n\tpopl %%ebp\n\taddl $4, %%esp"
                     : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e), [f] "m"(f) : "memory");
    return result;
}
#endif

#define syscall0(n) syscall6(n, 0, 0, 0, 0, 0, 0)
#define syscall1(n, a) syscall6(n, (long)(a), 0, 0, 0, 0, 0)
#define syscall2(n, a, b) syscall6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define syscall3(n, a, b, c) syscall6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define syscall4(n, a, b, c, d) syscall6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)

enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4, MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };

static inline void *map_anonymous(size_t bytes, int protection)
{
    return (void *)syscall6(SYS_mmap, 0, (long)bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static inline _Noreturn void exit_process(int status)
{
    for (;;)
        syscall1(SYS_exit, status);
}

// struct sigaction as the kernel sees it.
struct kernel_sigaction {
    void (*handler)(int);
    unsigned long flags;
    void (*restorer)(void);
    uint64_t mask;
};
enum { SA_SIGINFO = 4, SA_RESTORER = 0x04000000, SIGUSR1 = 10, SIGSEGV = 11 };
