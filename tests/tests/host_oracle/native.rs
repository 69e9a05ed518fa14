//! One instruction on the host's own processor: fixed mappings, a stub that loads and saves all registers, and signal
//! handlers that turn faults into values.
//!
//! ```text
//!  CODE   slots: | room | instruction | jmp [left] ... | jmp [taken] |
//!  STUB   enter | left | taken | after a signal
//!  AREA   what the stub loads and saves
//!  DATA   two pages to read and write, one to read, nothing behind
//! ```
//! The process runs nothing else worth protecting: it is limited in time, memory and files, and a seccomp filter lets
//! its thread do little more than allocate, print and exit.

use crate::{CODE, CODE_BYTES, DATA, DATA_BYTES, DATA_WRITABLE, LEAD, SLOT, TAKEN};
use std::ffi::c_void;
use std::mem::{offset_of, zeroed};

const STUB: u64 = 0x1080_0000;
const AREA: u64 = 0x1081_0000;

/// Linux's selectors for programs: 64-bit code, 32-bit code, data.
pub const USER_CS: u16 = 0x33;
/// See [`USER_CS`].
pub const USER_CS32: u16 = 0x23;
/// See [`USER_CS`].
pub const USER_DS: u16 = 0x2b;

/// The FXSAVE64 image (SDM Vol. 1 table 10-2).
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct Fx(pub [u8; 512]);

/// Everything that an instruction in user mode can see in registers.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct State {
    pub fx: Fx,
    pub gpr: [u64; 16],
    pub rip: u64,
    pub flags: u64,
}

#[repr(C)]
struct Area {
    input: State,
    output: State,
    host_rsp: u64,
    left: u64,
    taken: u64,
    mxcsr: u64,
    /// Offset and selector of a far jump into 32-bit code.
    entry32: [u32; 2],
    running: u64,
    fault: Fault,
}

/// What an instruction raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Fault {
    /// The vector; 255 for none.
    pub vector: u8,
    /// The error code.
    pub error: u64,
    /// CR2, for #PF.
    pub address: u64,
}

/// No fault.
pub const NO_FAULT: Fault = Fault { vector: 255, error: 0, address: 0 };

/// The way to the host's processor. There is only one in a process: its addresses are fixed.
pub struct Native {
    area: &'static mut Area,
    enter: [extern "C" fn(); 2],
    /// Base of GS.
    pub gs_base: u64,
}

impl Native {
    /// Maps everything, installs the handlers and locks the thread up.
    pub fn new(gs_base: u64) -> Native {
        map(CODE, CODE_BYTES, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        map(STUB, 0x1000, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC);
        map(AREA, 0x1000, libc::PROT_READ | libc::PROT_WRITE);
        map(DATA, DATA_BYTES, libc::PROT_READ | libc::PROT_WRITE);
        let Stub { code, enter32, left, taken, recover } = stub();
        // SAFETY: the stub's page was mapped above for reading, writing and executing, and is large enough.
        unsafe { std::ptr::copy_nonoverlapping(code.as_ptr(), STUB as *mut u8, code.len()) };
        // SAFETY: the area's page was mapped above and is zero, which is a valid `Area`; nothing else refers to it but
        // the stub and the signal handler, which run only inside `execute`.
        let area = unsafe { &mut *(AREA as *mut Area) };
        area.left = STUB + left;
        area.taken = STUB + taken;
        area.mxcsr = 0x1f80;
        RECOVER.store(STUB + recover, std::sync::atomic::Ordering::Relaxed);
        area.entry32 = [0, u32::from(USER_CS32)];
        // SAFETY: at these two places of the stub functions begin that follow the C calling convention.
        let enter = [STUB, STUB + enter32].map(|at| unsafe { std::mem::transmute::<u64, extern "C" fn()>(at) });
        // SAFETY: flat data segments, which 64-bit code does not use and 32-bit code needs.
        unsafe { std::arch::asm!("mov ds, {0:e}", "mov es, {0:e}", in(reg) u32::from(USER_DS)) };
        handle_signals();
        limit();
        // SAFETY: sets the base of GS, which Linux programs in 64-bit mode do not use.
        unsafe { libc::syscall(libc::SYS_arch_prctl, 0x1001, gs_base) };
        confine();
        Native { area, enter, gs_base }
    }

    /// Makes the data pages hold `bytes`, and the last of them read-only.
    pub fn fill(&mut self, bytes: &[u8]) {
        protect(DATA, DATA_BYTES, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: the pages are mapped and were made writable just now; no reference to them is alive.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), DATA as *mut u8, DATA_BYTES) };
        protect(DATA + DATA_WRITABLE as u64, DATA_BYTES - DATA_WRITABLE, libc::PROT_READ);
    }

    /// The writable data pages.
    pub fn data(&mut self) -> &mut [u8] {
        // SAFETY: mapped for reading and writing as long as the process lives; the borrow of `self` keeps it from
        // being changed by `execute` meanwhile.
        unsafe { std::slice::from_raw_parts_mut(DATA as *mut u8, DATA_WRITABLE) }
    }

    /// Puts an instruction into the slot at `address`, with ways out behind it and at [`TAKEN`].
    pub fn place(&mut self, address: u64, bytes: &[u8], bits: u32) {
        let mut slot = [0xcc; (SLOT - LEAD) as usize];
        slot[..bytes.len()].copy_from_slice(bytes);
        let leave = |field: usize, target: u64| if bits == 64 { jump_through(field) } else { jump_far(target) };
        slot[bytes.len()..][..7].copy_from_slice(&leave(offset_of!(Area, left), self.area.left));
        slot[TAKEN as usize..][..7].copy_from_slice(&leave(offset_of!(Area, taken), self.area.taken));
        // SAFETY: slots lie within the code pages, which are mapped for writing; nothing executes there now.
        unsafe { std::ptr::copy_nonoverlapping(slot.as_ptr(), address as *mut u8, slot.len()) };
    }

    /// Executes what is placed at `input.rip`, of `len` bytes.
    pub fn execute(&mut self, input: &State, len: u64, bits: u32) -> (State, Fault) {
        self.area.input = *input;
        self.area.fault = NO_FAULT;
        self.area.running = 1;
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        self.area.entry32[0] = input.rip as u32;
        (self.enter[usize::from(bits == 32)])();
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        // SAFETY: the area is mapped; the stub has written it behind the compiler's back, hence volatile.
        let area = unsafe { std::ptr::read_volatile(AREA as *const Area) };
        self.area.running = 0;
        let mut output = area.output;
        if area.fault.vector == NO_FAULT.vector {
            output.rip = input.rip + if output.rip == 0 { len } else { TAKEN };
        }
        (output, area.fault)
    }
}

fn map(address: u64, len: usize, protection: i32) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
    // SAFETY: a new mapping where nothing is mapped yet (`MAP_FIXED_NOREPLACE`).
    let at = unsafe { libc::mmap(address as *mut c_void, len, protection, flags, -1, 0) };
    assert_eq!(at as u64, address, "the host has something at {address:#x}");
}

fn protect(address: u64, len: usize, protection: i32) {
    // SAFETY: only called for the data pages, to which no reference is alive.
    assert_eq!(unsafe { libc::mprotect(address as *mut c_void, len, protection) }, 0);
}

/// `jmp qword [AREA + field]`
fn jump_through(field: usize) -> [u8; 7] {
    let [a, b, c, d] = (AREA as u32 + field as u32).to_le_bytes();
    [0xff, 0x24, 0x25, a, b, c, d]
}

/// `jmp 0x33:target`, from 32-bit code.
fn jump_far(target: u64) -> [u8; 7] {
    let [a, b, c, d] = (target as u32).to_le_bytes();
    [0xea, a, b, c, d, USER_CS as u8, 0]
}

/// The stub's code; offsets of the way into 32-bit code (that into 64-bit code is at its start), of the two ways out of
/// an instruction, and of the way out of a signal handler.
struct Stub {
    code: Vec<u8>,
    enter32: u64,
    left: u64,
    taken: u64,
    recover: u64,
}

fn stub() -> Stub {
    const CALLEE_SAVED: [u8; 6] = [3, 5, 12, 13, 14, 15];
    let mut code = Vec::new();
    let at = |field: usize| (AREA as u32 + field as u32).to_le_bytes();
    let (input, output) = (offset_of!(Area, input), offset_of!(Area, output));
    // An instruction with an absolute 32-bit address: prefix bytes and opcode, the register field, the address.
    let absolute = |code: &mut Vec<u8>, opcode: &[u8], register: u8, field: usize| {
        code.extend_from_slice(opcode);
        code.extend_from_slice(&[(register & 7) << 3 | 4, 0x25]);
        code.extend_from_slice(&at(field));
    };
    let load = |code: &mut Vec<u8>, n: u8, field: usize| absolute(code, &[0x48 | n >> 3 << 2, 0x8b], n, field);
    let store = |code: &mut Vec<u8>, n: u8, field: usize| absolute(code, &[0x48 | n >> 3 << 2, 0x89], n, field);
    let push = |code: &mut Vec<u8>, n: u8| code.extend_from_slice(&[0x40 | n >> 3, 0x50 | (n & 7)]);
    let pop = |code: &mut Vec<u8>, n: u8| code.extend_from_slice(&[0x40 | n >> 3, 0x58 | (n & 7)]);
    let back = |code: &mut Vec<u8>| {
        code.extend_from_slice(&[0xdb, 0xe3]); // fninit
        absolute(code, &[0x0f, 0xae], 2, offset_of!(Area, mxcsr)); // ldmxcsr
        code.extend_from_slice(&[0x68, 0x02, 0x02, 0, 0, 0x9d]); // push 0x202; popfq
        for n in CALLEE_SAVED.iter().rev() {
            pop(code, *n);
        }
        code.push(0xc3);
    };

    let enter = |code: &mut Vec<u8>, bits: u32| {
        for n in CALLEE_SAVED {
            push(code, n);
        }
        store(code, 4, offset_of!(Area, host_rsp));
        absolute(code, &[0x48, 0x0f, 0xae], 1, input + offset_of!(State, fx)); // fxrstor64
        absolute(code, &[0xff], 6, input + offset_of!(State, flags)); // push
        code.push(0x9d); // popfq
        for n in (0..16).filter(|n| *n != 4) {
            load(code, n, input + offset_of!(State, gpr) + 8 * usize::from(n));
        }
        load(code, 4, input + offset_of!(State, gpr) + 32);
        match bits {
            64 => absolute(code, &[0xff], 4, input + offset_of!(State, rip)), // jmp
            _ => absolute(code, &[0xff], 5, offset_of!(Area, entry32)),       // jmp far
        }
    };
    enter(&mut code, 64);
    let enter32 = code.len() as u64;
    enter(&mut code, 32);

    let save = |code: &mut Vec<u8>, marker: u8| {
        let start = code.len() as u64;
        absolute(code, &[0x48, 0xc7], 0, output + offset_of!(State, rip)); // mov qword [rip], marker
        code.extend_from_slice(&[marker, 0, 0, 0]);
        for n in 0..16 {
            store(code, n, output + offset_of!(State, gpr) + 8 * usize::from(n));
        }
        load(code, 4, offset_of!(Area, host_rsp));
        code.push(0x9c); // pushfq
        absolute(code, &[0x8f], 0, output + offset_of!(State, flags)); // pop
        absolute(code, &[0x48, 0x0f, 0xae], 0, output + offset_of!(State, fx)); // fxsave64
        back(code);
        start
    };
    let left = save(&mut code, 0);
    let taken = save(&mut code, 1);
    let recover = code.len() as u64;
    load(&mut code, 4, offset_of!(Area, host_rsp));
    back(&mut code);
    Stub { code, enter32, left, taken, recover }
}

static RECOVER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Indices of `gregs` of the general registers in the order of their encodings, and of some others.
const GREGS: [usize; 16] = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const RIP: usize = 16;
const SELECTORS: usize = 18;
const EFLAGS: usize = 17;
const ERROR: usize = 19;
const TRAP: usize = 20;
const CR2: usize = 22;

extern "C" fn on_signal(signal: i32, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: only AC changes, which the instruction may have left set and compiled code does not expect.
    unsafe { std::arch::asm!("pushfq", "and qword ptr [rsp], {0}", "popfq", const !0x4_0000) };
    // SAFETY: the kernel passes a valid context. The area is mapped before handlers are installed, and while an
    // instruction runs nothing else uses it.
    unsafe {
        let context = &mut *(context as *mut libc::ucontext_t);
        let area = &mut *(AREA as *mut Area);
        let registers = &mut context.uc_mcontext.gregs;
        let rip = registers[RIP] as u64;
        let single_step = registers[TRAP] == 1;
        if area.running == 0 || (!single_step && (STUB..STUB + 0x1000).contains(&rip)) {
            // Not the guest's: die of it. (A single-step trap comes one instruction after TF was set.)
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        for (value, index) in area.output.gpr.iter_mut().zip(GREGS) {
            *value = registers[index] as u64;
        }
        area.output.rip = rip;
        area.output.flags = registers[EFLAGS] as u64;
        area.output.fx = std::ptr::read_unaligned(context.uc_mcontext.fpregs as *const Fx);
        area.fault =
            Fault { vector: registers[TRAP] as u8, error: registers[ERROR] as u64, address: registers[CR2] as u64 };
        registers[RIP] = RECOVER.load(std::sync::atomic::Ordering::Relaxed) as i64;
        registers[SELECTORS] = registers[SELECTORS] & !0xffff | i64::from(USER_CS);
        // Without TF, DF and AC.
        registers[EFLAGS] = 0x202;
    }
}

fn handle_signals() {
    const STACK: usize = 64 << 10;
    // SAFETY: gives the thread a stack for signals that is never freed, and installs a handler of the type that
    // `SA_SIGINFO` asks for.
    unsafe {
        let stack = Box::leak(vec![0u8; STACK].into_boxed_slice());
        let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
        assert_eq!(libc::sigaltstack(&stack, std::ptr::null_mut()), 0);
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGTRAP] {
            let mut action: libc::sigaction = zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }
}

fn limit() {
    // SAFETY: only lowers limits of this process.
    unsafe {
        let set = |what, value| libc::setrlimit(what, &libc::rlimit { rlim_cur: value, rlim_max: value });
        set(libc::RLIMIT_CORE, 0);
        set(libc::RLIMIT_FSIZE, 64 << 20);
        set(libc::RLIMIT_AS, 4 << 30);
    }
}

/// Allows this thread only the system calls that it needs; others fail.
fn confine() {
    const ALLOWED: [i64; 19] = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_futex,
        libc::SYS_sched_yield,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_gettid,
    ];
    let filter = |code: u32, jt: usize, k: u32| libc::sock_filter { code: code as u16, jt: jt as u8, jf: 0, k };
    let mut program = vec![filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0)];
    for (n, call) in ALLOWED.iter().enumerate() {
        program.push(filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, ALLOWED.len() - n, *call as u32));
    }
    program.push(filter(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32));
    program.push(filter(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the program is valid for the duration of the calls, which only take rights away.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program), 0);
    }
}
