//! Code page 437, the character set of the PC's font, as Unicode (Unicode Consortium, VENDORS/MICSFT/PC/CP437.TXT; control
//! characters as the font draws them).

const TABLE: &str = "\
\x20☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼\
\x20!\"#$%&'()*+,-./0123456789:;<=>?\
@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_\
`abcdefghijklmnopqrstuvwxyz{|}~⌂\
ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒ\
áíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀\
αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// All 256 characters.
pub fn table() -> [char; 256] {
    let mut table = [' '; 256];
    for (entry, character) in table.iter_mut().zip(TABLE.chars()) {
        *entry = if character == '\u{a0}' { ' ' } else { character };
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_character() {
        assert_eq!(TABLE.chars().count(), 256);
        let table = table();
        assert!((0x20..0x7f).all(|code| table[code] == code as u8 as char));
        assert_eq!((table[0x01], table[0x80], table[0xb3], table[0xdb], table[0xfe]), ('☺', 'Ç', '│', '█', '■'));
    }
}
