//! x86 CPU, memory and device interfaces of emu.
