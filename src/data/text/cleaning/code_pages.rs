//! The encodings of one byte a character in which UTF-8 is most often misread, as ftfy 6.3.1 has them.
//!
//! Own tables, as encoding_rs lacks cp437 and fills the holes of Windows' pages in another way.

/// In the order in which they are tried.
pub(super) const PAGES: [CodePage; 10] = [
    CodePage { upper: Upper::Latin1, sloppy: false, mac: false },
    CodePage::windows(WINDOWS_1252),
    CodePage::windows(WINDOWS_1251),
    CodePage::windows(WINDOWS_1250),
    CodePage::windows(WINDOWS_1253),
    CodePage::windows(WINDOWS_1254),
    CodePage::windows(WINDOWS_1257),
    CodePage { upper: Upper::AfterC1(ISO_8859_2), sloppy: false, mac: false },
    CodePage { upper: Upper::All(MAC_ROMAN), sloppy: false, mac: true },
    CodePage { upper: Upper::All(CP437), sloppy: false, mac: false },
];

/// Stands for a character that was lost before.
pub(super) const LOST: u8 = 0x1a;

pub(super) struct CodePage {
    upper: Upper,
    /// True if U+FFFD is written as [`LOST`].
    pub sloppy: bool,
    pub mac: bool,
}

/// The characters of the bytes from 0x80 on.
enum Upper {
    Latin1,
    /// Of those from 0xA0 on; below are the control characters of Latin-1.
    AfterC1(&'static str),
    All(&'static str),
}

impl CodePage {
    const fn windows(upper: &'static str) -> Self {
        CodePage { upper: Upper::All(upper), sloppy: true, mac: false }
    }

    /// The bytes that are read as `text`, where there are any.
    pub fn encode(&self, text: &str) -> Option<Vec<u8>> {
        text.chars().map(|character| self.byte(character)).collect()
    }

    fn byte(&self, character: char) -> Option<u8> {
        let code = u32::from(character);
        let among = |upper: &str, first: usize| {
            let place = upper.chars().position(|other| other == character)?;
            u8::try_from(first + place).ok()
        };
        match &self.upper {
            _ if self.sloppy && character == '\u{FFFD}' => Some(LOST),
            _ if self.sloppy && code == u32::from(LOST) => None,
            _ if code < 0x80 => u8::try_from(code).ok(),
            Upper::Latin1 => u8::try_from(code).ok(),
            Upper::AfterC1(_) if code < 0xA0 => u8::try_from(code).ok(),
            Upper::AfterC1(upper) => among(upper, 0xA0),
            Upper::All(upper) => among(upper, 0x80),
        }
    }
}

/// The character that Windows-1252 has in the place of a control character of Latin-1 (U+0080 to U+009F). The five that
/// it lacks stay.
pub(super) fn windows_1252_of(control: char) -> char {
    let place = u32::from(control).wrapping_sub(0x80) as usize;
    WINDOWS_1252.chars().nth(place).filter(|_| place < 0x20).unwrap_or(control)
}

#[rustfmt::skip]
const WINDOWS_1252: &str =
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8D}Ž\u{8F}\u{90}‘’“”•–—˜™š›œ\u{9D}žŸ\u{A0}¡¢£¤¥¦§¨©ª«¬\u{AD}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐÑÒÓÔÕÖ×ØÙÚÛÜÝÞßàáâãäåæçèéêëìíîïðñòóôõö÷øùúûüýþÿ";
#[rustfmt::skip]
const WINDOWS_1251: &str =
    "ЂЃ‚ѓ„…†‡€‰Љ‹ЊЌЋЏђ‘’“”•–—\u{98}™љ›њќћџ\u{A0}ЎўЈ¤Ґ¦§Ё©Є«¬\u{AD}®Ї°±Ііґµ¶·ё№є»јЅѕїАБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯабвгдежзийклмнопрстуфхцчшщъыьэюя";
#[rustfmt::skip]
const WINDOWS_1250: &str =
    "€\u{81}‚\u{83}„…†‡\u{88}‰Š‹ŚŤŽŹ\u{90}‘’“”•–—\u{98}™š›śťžź\u{A0}ˇ˘Ł¤Ą¦§¨©Ş«¬\u{AD}®Ż°±˛ł´µ¶·¸ąş»Ľ˝ľżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
#[rustfmt::skip]
const WINDOWS_1253: &str =
    "€\u{81}‚ƒ„…†‡\u{88}‰\u{8A}‹\u{8C}\u{8D}\u{8E}\u{8F}\u{90}‘’“”•–—\u{98}™\u{9A}›\u{9C}\u{9D}\u{9E}\u{9F}\u{A0}΅Ά£¤¥¦§¨©ª«¬\u{AD}®―°±²³΄µ¶·ΈΉΊ»Ό½ΎΏΐΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡÒΣΤΥΦΧΨΩΪΫάέήίΰαβγδεζηθικλμνξοπρςστυφχψωϊϋόύώÿ";
#[rustfmt::skip]
const WINDOWS_1254: &str =
    "€\u{81}‚ƒ„…†‡ˆ‰Š‹Œ\u{8D}\u{8E}\u{8F}\u{90}‘’“”•–—˜™š›œ\u{9D}\u{9E}Ÿ\u{A0}¡¢£¤¥¦§¨©ª«¬\u{AD}®¯°±²³´µ¶·¸¹º»¼½¾¿ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏĞÑÒÓÔÕÖ×ØÙÚÛÜİŞßàáâãäåæçèéêëìíîïğñòóôõö÷øùúûüışÿ";
#[rustfmt::skip]
const WINDOWS_1257: &str =
    "€\u{81}‚\u{83}„…†‡\u{88}‰\u{8A}‹\u{8C}¨ˇ¸\u{90}‘’“”•–—\u{98}™\u{9A}›\u{9C}¯˛\u{9F}\u{A0}¡¢£¤¥¦§Ø©Ŗ«¬\u{AD}®Æ°±²³´µ¶·ø¹ŗ»¼½¾æĄĮĀĆÄÅĘĒČÉŹĖĢĶĪĻŠŃŅÓŌÕÖ×ŲŁŚŪÜŻŽßąįāćäåęēčéźėģķīļšńņóōõö÷ųłśūüżž˙";
#[rustfmt::skip]
const ISO_8859_2: &str =
    "\u{A0}Ą˘Ł¤ĽŚ§¨ŠŞŤŹ\u{AD}ŽŻ°ą˛ł´ľśˇ¸šşťź˝žżŔÁÂĂÄĹĆÇČÉĘËĚÍÎĎĐŃŇÓÔŐÖ×ŘŮÚŰÜÝŢßŕáâăäĺćçčéęëěíîďđńňóôőö÷řůúűüýţ˙";
#[rustfmt::skip]
const MAC_ROMAN: &str =
    "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»…\u{A0}ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔ\u{F8FF}ÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";
#[rustfmt::skip]
const CP437: &str =
    "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{A0}";
