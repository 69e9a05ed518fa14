//! Commands on memory and ports, and what starts the machine anew. Each is called with SI behind its name.

use super::state;
use crate::rom::asm::*;

/// Bytes that `dump` shows unless told.
const DUMP: u32 = 0x80;
/// The most it shows.
const MOST: u32 = 0x1000;
/// PIIX4's PM1 control register, and its SLP_EN bit.
const PM1_CONTROL: u16 = 0x604;
const SLEEP: u32 = 0x2000;

pub fn emit(rom: &mut Rom) {
    memory(rom);
    ports(rom);
    asm! { rom;
        label("monitor.boot");
        int(0x19);
        label("monitor.reboot");
        mov(al, 0x06);
        out_al(0xCF9);
        mov(al, 0xFE);
        out(0x64, al);
        label(".wait");
        hlt();
        jmp(".wait");
        label("monitor.poweroff");
        mov(ax, SLEEP);
        out_ax(PM1_CONTROL);
        say("This machine does not switch itself off.\r\n");
        ret();
    }
}

fn memory(rom: &mut Rom) {
    asm! { rom;
        // FS = 0 with a limit of 4 GiB. Keeps all other registers but GS.
        label("monitor.flat");
        push(ds);
        push(es);
        call("flat.big");
        pop(es);
        pop(ds);
        ret();

        label("monitor.dump");
        mov(ebx, dword_ptr(state::NEXT));
        mov(ecx, DUMP);
        call("monitor.skip");
        jz(".range");
        call("monitor.address");
        jc("monitor.wrong");
        push(eax);
        call("monitor.number");
        mov(ecx, eax);
        jnc(".length");
        mov(ecx, DUMP);
        label(".length");
        pop(ebx);
        cmp(ecx, MOST);
        jbe(".range");
        mov(ecx, MOST);
        label(".range");
        test(ecx, ecx);
        jz(".nothing");
        call("monitor.flat");
        label(".row");
        mov(eax, ebx);
        call("monitor.hex32");
        call("monitor.space");
        mov(esi, ebx);
        // DL = bytes of this row.
        mov(dl, 16);
        cmp(ecx, 16);
        jae(".full");
        mov(dl, cl);
        label(".full");
        mov(dh, 0);
        label(".byte");
        call("monitor.space");
        test(dh, 7);
        jnz(".cell");
        test(dh, dh);
        jz(".cell");
        call("monitor.space");
        label(".cell");
        cmp(dh, dl);
        jae(".blank");
        mov(al, byte_ptr(esi).fs());
        inc(esi);
        call("monitor.hex8");
        jmp(".shown");
        label(".blank");
        call("monitor.space");
        call("monitor.space");
        label(".shown");
        inc(dh);
        cmp(dh, 16);
        jb(".byte");
        call("monitor.space");
        call("monitor.space");
        mov(esi, ebx);
        mov(dh, dl);
        label(".character");
        mov(al, byte_ptr(esi).fs());
        inc(esi);
        cmp(al, 0x20);
        jb(".dot");
        cmp(al, 0x7E);
        jbe(".printable");
        label(".dot");
        mov(al, u32::from(b'.'));
        label(".printable");
        call("monitor.char");
        dec(dh);
        jnz(".character");
        call("monitor.newline");
        movzx(edx, dl);
        add(ebx, edx);
        sub(ecx, edx);
        jnz(".row");
        label(".nothing");
        mov(dword_ptr(state::NEXT), ebx);
        ret();

        label("monitor.edit");
        call("monitor.address");
        jc("monitor.wrong");
        mov(edi, eax);
        call("monitor.skip");
        jz("monitor.wrong");
        mov(dword_ptr(state::NEXT), edi);
        call("monitor.flat");
        label(".byte");
        call("monitor.number");
        jc("monitor.wrong");
        cmp(eax, 0xFF);
        ja("monitor.wrong");
        mov(byte_ptr(edi).fs(), al);
        inc(edi);
        call("monitor.skip");
        jnz(".byte");
        ret();
    }
}

fn ports(rom: &mut Rom) {
    asm! { rom;
        // DX = the port at SI; the command is wrong without one.
        label("monitor.port");
        call("monitor.number");
        jc(".wrong");
        cmp(eax, 0xFFFF);
        ja(".wrong");
        mov(dx, ax);
        ret();
        label(".wrong");
        // The command's own return address goes.
        add(sp, 2);
        jmp("monitor.wrong");

        label("monitor.inb");
        call("monitor.port");
        in_(al, dx);
        call("monitor.hex8");
        jmp("monitor.newline");
        label("monitor.inw");
        call("monitor.port");
        in_(ax, dx);
        call("monitor.hex16");
        jmp("monitor.newline");
        label("monitor.inl");
        call("monitor.port");
        in_(eax, dx);
        call("monitor.hex32");
        jmp("monitor.newline");
        label("monitor.outb");
        call("monitor.port");
        call("monitor.number");
        jc("monitor.wrong");
        out(dx, al);
        ret();
        label("monitor.outw");
        call("monitor.port");
        call("monitor.number");
        jc("monitor.wrong");
        out(dx, ax);
        ret();
        label("monitor.outl");
        call("monitor.port");
        call("monitor.number");
        jc("monitor.wrong");
        out(dx, eax);
        ret();
    }
}
