//! Changes of an input, drawn from a seed.

use rand::Rng;
use rand_chacha::ChaCha8Rng;

/// What is known to be treated in a way of its own somewhere.
const SPECIAL: [&[u8]; 24] = [
    b"\0",
    b"\xff",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xf0\x9f",
    b"\r\n",
    b"\t",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"(",
    b",",
    b"..",
    b"/**",
    b"NaN",
    b"Infinity",
    b"null",
    b"-1",
    b"1e400",
    b"\x1b[2J",
    b"../",
    b"\xed\xa0\x80",
];
/// What numbers are replaced with.
const NUMBERS: [&str; 10] = [
    "0",
    "1",
    "-1",
    "4294967296",
    "9223372036854775808",
    "18446744073709551615",
    "99999999999999999999",
    "1e308",
    "0.5",
    "NaN",
];

/// Cuts, overwrites, repeats and joins: where archives, headers and scans are likely to break, and texts too.
pub fn change(rng: &mut ChaCha8Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.gen_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = match rng.gen_range(0..3) {
            // Headers of archives.
            0 => (rng.gen_range(0..bytes.len().div_ceil(512)) * 512 + rng.gen_range(0..300))
                .min(bytes.len() - 1),
            _ => rng.gen_range(0..bytes.len()),
        };
        let end = (at + rng.gen_range(1..64)).min(bytes.len());
        match rng.gen_range(0..10) {
            0 => bytes[at] ^= 1 << rng.gen_range(0..8),
            1 => bytes[at] = rng.gen(),
            2 => bytes[at..end].fill([0, 0xff, 0x7f][rng.gen_range(0..3)]),
            3 => bytes.truncate(at),
            4 => {
                // Now and then very often: nesting has its limits.
                let times = if rng.gen_range(0..8) == 0 { rng.gen_range(1..3000) } else { 1 };
                let piece = bytes[at..end].repeat(times);
                bytes.splice(at..at, piece);
            }
            5 => {
                bytes.drain(at..end);
            }
            6 => {
                bytes.splice(at..at, SPECIAL[rng.gen_range(0..SPECIAL.len())].iter().copied());
            }
            7 => number(rng, &mut bytes, at),
            8 => {
                let other = bytes[at..end].to_vec();
                let to = rng.gen_range(0..=bytes.len());
                bytes.splice(to..to, other);
            }
            _ if !other.is_empty() => {
                let from = rng.gen_range(0..other.len());
                let piece = &other[from..(from + rng.gen_range(1..2048)).min(other.len())];
                let end = (at + piece.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            _ => {}
        }
    }
    bytes
}

/// Replaces the first number behind a place.
fn number(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, at: usize) {
    let Some(start) = bytes[at..].iter().position(u8::is_ascii_digit) else { return };
    let start = at + start;
    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let with = NUMBERS[rng.gen_range(0..NUMBERS.len())];
    bytes.splice(start..start + length, with.bytes());
}
