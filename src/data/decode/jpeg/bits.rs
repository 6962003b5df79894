//! The entropy-coded data of a scan, bit by bit.

use super::huffman::{Codes, END};
use super::Unsupported;

/// Zeros behind each piece of the data, so that bits can be read eight bytes at a time.
const PADDING: usize = 16;

/// The data of a scan without stuffing, cut at its restart markers.
#[derive(Debug, Default)]
pub struct Pieces {
    pub data: Vec<u8>,
    /// Start and end of each piece in it.
    pub ranges: Vec<(usize, usize)>,
    /// True if restart markers count from 0 to 7 again and again.
    pub in_order: bool,
}

impl Pieces {
    /// Copies the data up to a marker that ends it. Returns the marker and the bytes up to and with it, or `None`
    /// where the bytes end first; what there is of the data is kept then, too.
    pub fn collect(&mut self, bytes: &[u8]) -> Option<(u8, usize)> {
        self.data.clear();
        self.ranges.clear();
        self.in_order = true;
        self.data.reserve(bytes.len() + PADDING);
        let (mut rest, mut begin) = (bytes, 0);
        loop {
            let Some(at) = memchr::memchr(0xff, rest) else {
                self.data.extend_from_slice(rest);
                self.end(begin);
                return None;
            };
            let (plain, from_marker) = rest.split_at(at);
            self.data.extend_from_slice(plain);
            let Some(kind) = from_marker.iter().position(|&byte| byte != 0xff) else {
                self.end(begin);
                return None;
            };
            rest = &from_marker[kind + 1..];
            match from_marker[kind] {
                0 => self.data.push(0xff),
                marker => {
                    let restart = (0xd0..=0xd7).contains(&marker);
                    self.in_order &= !restart || usize::from(marker - 0xd0) == self.ranges.len() % 8;
                    begin = self.end(begin);
                    if !restart {
                        return Some((marker, bytes.len() - rest.len()));
                    }
                }
            }
        }
    }

    /// Ends a piece; returns where the next one begins.
    fn end(&mut self, begin: usize) -> usize {
        let end = self.data.len();
        self.ranges.push((begin, end));
        self.data.resize(end + PADDING, 0);
        end + PADDING
    }
}

/// Reads bits of a piece of data.
pub struct Bits<'a> {
    data: &'a [u8],
    /// The next byte to take.
    at: usize,
    end: usize,
    /// The next bits, the first of them highest; below the `left` bits that were counted there may be more.
    next: u64,
    left: u32,
}

impl<'a> Bits<'a> {
    pub fn of(data: &'a [u8], &(at, end): &(usize, usize)) -> Self {
        Bits { data, at, end, next: 0, left: 0 }
    }

    /// Makes at least 56 bits ready.
    #[inline(always)]
    pub fn refill(&mut self) -> Result<(), Unsupported> {
        let eight =
            self.data.get(self.at..self.at + 8).and_then(|eight| eight.try_into().ok()).ok_or(Unsupported)?;
        self.next |= u64::from_be_bytes(eight) >> self.left;
        self.at += (63 - self.left as usize) >> 3;
        self.left |= 56;
        Ok(())
    }

    /// The next run of zeros and the value behind it.
    #[inline(always)]
    pub fn take(&mut self, codes: &Codes, ac: bool) -> Result<(usize, i32), Unsupported> {
        let entry = codes.look_up(self.next, ac).ok_or(Unsupported)?;
        // Without branches: how long a value is cannot be foreseen.
        let bits = self.next << entry.code();
        self.skip(entry.bits());
        // In two steps, as a value of no bits would be shifted by 64.
        let value = (bits >> 1 >> (63 - entry.size())) as i32;
        // The lower half of a size's range is negative.
        let negative = !((bits as i64) >> 63) as i32;
        Ok((entry.run(), value + (negative & (1 - (1 << entry.size())))))
    }

    /// Reads past all values of a block but the first.
    #[inline(always)]
    pub fn pass(&mut self, ac: &Codes) -> Result<(), Unsupported> {
        let mut at = 1;
        while at < 64 {
            self.refill()?;
            let pair = ac.look_up_pair(self.next);
            if !pair.is_known() || at + pair.before_second() >= 64 {
                // A long code, or a block that ends between the two.
                let (run, _) = self.take(ac, true)?;
                at += if run == END { END } else { run + 1 };
                if at > 64 && run != END {
                    return Err(Unsupported);
                }
                continue;
            }
            self.skip(pair.bits());
            at += pair.coefficients();
            if at > 64 && pair.coefficients() < END {
                return Err(Unsupported);
            }
        }
        Ok(())
    }

    #[inline(always)]
    pub fn skip(&mut self, bits: u32) {
        self.next <<= bits;
        self.left -= bits;
    }

    /// # Errors
    /// More bits were read than the piece has.
    pub fn end(&self) -> Result<(), Unsupported> {
        let read = 8 * self.at - self.left as usize;
        if read <= 8 * self.end {
            Ok(())
        } else {
            Err(Unsupported)
        }
    }
}
