//! Reading QEMU's firmware configuration device (docs/specs/fw_cfg.rst): by DMA where it is offered, else byte by byte.
//!
//! ```text
//!  510h selector   511h data   514h DMA address, big-endian, high half first
//! ```

use crate::rom::asm::*;
use crate::rom::post::scratch;

const KEY_SIGNATURE: u32 = 0;
const KEY_ID: u32 = 1;
const KEY_DIRECTORY: u32 = 0x19;
/// "QEMU".
const SIGNATURE: u32 = u32::from_le_bytes(*b"QEMU");
const ID_DMA: u32 = 2;
/// A DMA command's control word for reading, big-endian as the device wants it, and the error bit likewise.
const DMA_READ: u32 = 2u32.swap_bytes();
const DMA_ERROR: u32 = 1u32.swap_bytes();
/// A directory entry: size and key, big-endian, then the name.
pub const ENTRY: i32 = 64;
pub const ENTRY_NAME: i32 = 8;

pub fn emit_flat(rom: &mut Rom) {
    asm! { rom;
        align(4);
        // Files in the directory, which is at `scratch::DIRECTORY`.
        label("fwcfg.count");
        dd(&[0]);
        label("fwcfg.dma");
        dd(&[0]);

        // Finds out whether the device is there, and reads its directory.
        label("fwcfg.setup");
        mov(dword_ptr(rom.at("fwcfg.count")), 0);
        mov(dword_ptr(rom.at("fwcfg.dma")), 0);
        mov(eax, KEY_SIGNATURE);
        call("fwcfg.word");
        cmp(eax, SIGNATURE);
        jne(".done");
        mov(eax, KEY_ID);
        call("fwcfg.word");
        and(eax, ID_DMA);
        mov(dword_ptr(rom.at("fwcfg.dma")), eax);
        mov(eax, KEY_DIRECTORY);
        call("fwcfg.word");
        bswap(eax);
        cmp(eax, scratch::DIRECTORY_ENTRIES);
        jbe(".few");
        mov(eax, scratch::DIRECTORY_ENTRIES);
        label(".few");
        mov(dword_ptr(rom.at("fwcfg.count")), eax);
        shl(eax, 6);
        mov(ecx, eax);
        mov(edi, scratch::DIRECTORY);
        jmp("fwcfg.read");
        label(".done");
        ret();

        // Selects item AX and reads its first four bytes into EAX, without DMA. Changes EDX, ECX.
        label("fwcfg.word");
        out_ax(0x510);
        inc(edx);
        mov(ecx, 4);
        label(".next");
        in_(al, dx);
        ror(eax, 8);
        loop_(".next");
        ret();

        // Reads ECX bytes more of the selected item to EDI. Changes EAX, ECX, EDX; EDI ends behind them.
        label("fwcfg.read");
        jecxz(".done");
        cmp(dword_ptr(rom.at("fwcfg.dma")), 0);
        je(".bytes");
        mov(dword_ptr(scratch::FW_CFG_COMMAND), DMA_READ);
        mov(eax, ecx);
        bswap(eax);
        mov(dword_ptr(scratch::FW_CFG_COMMAND + 4), eax);
        mov(dword_ptr(scratch::FW_CFG_COMMAND + 8), 0);
        mov(eax, edi);
        bswap(eax);
        mov(dword_ptr(scratch::FW_CFG_COMMAND + 12), eax);
        add(edi, ecx);
        xor(eax, eax);
        out_eax(0x514);
        mov(eax, scratch::FW_CFG_COMMAND.swap_bytes());
        out_eax(0x518);
        label(".wait");
        test(dword_ptr(scratch::FW_CFG_COMMAND), !DMA_ERROR as i32);
        jnz(".wait");
        ret();
        label(".bytes");
        mov(dx, 0x511);
        rep().insb();
        label(".done");
        ret();

        // Selects the file whose zero-terminated name is at ESI: EAX = its size, CF clear; or CF set. Changes EBX, EDX, EDI.
        label("fwcfg.find");
        mov(ebx, dword_ptr(rom.at("fwcfg.count")));
        mov(edi, scratch::DIRECTORY + ENTRY_NAME as u32);
        label(".next");
        test(ebx, ebx);
        jz(".none");
        push(esi);
        push(edi);
        label(".compare");
        lodsb();
        cmp(al, byte_ptr(edi));
        jne(".differ");
        inc(edi);
        test(al, al);
        jnz(".compare");
        pop(edi);
        pop(esi);
        sub(edi, ENTRY_NAME);
        // Selects the file of the directory entry at EDI: EAX = its size.
        label("fwcfg.select");
        mov(ax, word_ptr(edi + 4));
        xchg(al, ah);
        out_ax(0x510);
        mov(eax, dword_ptr(edi));
        bswap(eax);
        clc();
        ret();
        label("fwcfg.find.differ");
        pop(edi);
        pop(esi);
        add(edi, ENTRY);
        dec(ebx);
        jmp("fwcfg.find.next");
        label("fwcfg.find.none");
        stc();
        ret();

        // Reads the file named at ESI to scratch memory: EAX = its size, CF clear; CF set if there is none or it is too long.
        label("fwcfg.load");
        call("fwcfg.find");
        jc(".done");
        cmp(eax, scratch::FILE_SIZE);
        ja(".long");
        push(eax);
        mov(ecx, eax);
        mov(edi, scratch::FILE);
        call("fwcfg.read");
        pop(eax);
        clc();
        ret();
        label(".long");
        stc();
        label(".done");
        ret();
    }
}
