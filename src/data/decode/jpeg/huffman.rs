//! Huffman codes of a JPEG scan.

use super::Unsupported;

/// Bits that are looked up at once.
const LOOKUP: u32 = 10;

/// The code that the next bits of the scan are, in one word; zero where the code is longer than the lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry(u32);

impl Entry {
    /// The entry of a symbol whose code has `length` bits.
    fn of(symbol: u8, length: u32, ac: bool) -> Entry {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        // Of symbols without a value only the run of sixteen zeros goes on.
        let run = if ac && size == 0 && run != 15 { END as u32 } else { run };
        Entry(run << 24 | size << 16 | length << 8 | (length + size))
    }

    /// Bits of the code and of the value behind it. The next lookup waits for them, so they come first.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        self.0 & 63
    }

    /// Bits of the code.
    #[inline(always)]
    pub fn code(self) -> u32 {
        self.0 >> 8 & 63
    }

    /// Bits of the value.
    #[inline(always)]
    pub fn size(self) -> u32 {
        self.0 >> 16 & 63
    }

    /// Zeros before the value.
    #[inline(always)]
    pub fn run(self) -> usize {
        (self.0 >> 24) as usize
    }
}

/// Lengths of one or two AC symbols, in one word; zero where the code is longer than the lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair(u32);

impl Pair {
    fn of(first: Entry, second: Option<Entry>) -> Pair {
        let step = |entry: Entry| if entry.run() == END { END } else { entry.run() + 1 } as u32;
        match second {
            _ if first.0 == 0 => Pair(0),
            None => Pair(step(first) << 16 | first.bits()),
            Some(second) => {
                Pair((step(first) + step(second)) << 16 | step(first) << 8 | (first.bits() + second.bits()))
            }
        }
    }

    pub fn is_known(self) -> bool {
        self.0 != 0
    }

    /// Bits of the symbols and their values, at most twenty.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        self.0 & 63
    }

    /// Coefficients up to the second symbol, if there is one.
    #[inline(always)]
    pub fn before_second(self) -> usize {
        (self.0 >> 8 & 255) as usize
    }

    /// Coefficients in all; [`END`] or more where the block ends.
    #[inline(always)]
    pub fn coefficients(self) -> usize {
        (self.0 >> 16) as usize
    }
}

/// A code, ready to be looked up.
#[derive(Debug, Clone)]
pub struct Codes {
    /// The segment it was built from.
    definition: Vec<u8>,
    entries: Box<[Entry; 1 << LOOKUP]>,
    /// The same, two values at a time where the lookup reaches that far.
    pairs: Box<[Pair; 1 << LOOKUP]>,
    /// By length: one more than the largest code of it, aligned to 16 bits.
    limits: [u32; 17],
    /// By length: what, added to a code of it, is its place among the symbols.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

/// The run of zeros that ends a block.
pub const END: usize = 64;

impl Codes {
    /// Builds the code of a segment: sixteen counts, then the symbols. `ac` where symbols hold runs.
    ///
    /// # Errors
    /// More codes than their lengths leave room for, or sizes that do not occur.
    pub fn new(definition: &[u8], ac: bool) -> Result<Codes, Unsupported> {
        let (counts, symbols) = definition.split_at_checked(16).ok_or(Unsupported)?;
        let mut codes = Codes {
            definition: definition.to_vec(),
            entries: Box::new([Entry(0); 1 << LOOKUP]),
            pairs: Box::new([Pair(0); 1 << LOOKUP]),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let largest = if ac { 10 } else { 11 };
        if symbols.iter().any(|&symbol| symbol & 15 > largest || (!ac && symbol > largest)) {
            return Err(Unsupported);
        }
        let (mut code, mut place) = (0u32, 0usize);
        for length in 1..=16u32 {
            let count = usize::from(counts[length as usize - 1]);
            codes.offsets[length as usize] = place as i32 - code as i32;
            if code + count as u32 > 1 << length {
                return Err(Unsupported);
            }
            for _ in 0..count {
                if length <= LOOKUP {
                    let symbol = *symbols.get(place).ok_or(Unsupported)?;
                    codes.enter(code, length, symbol, ac);
                }
                code += 1;
                place += 1;
            }
            codes.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        for bits in 0..1 << LOOKUP {
            codes.pairs[bits] = codes.pair(bits);
        }
        Ok(codes)
    }

    fn enter(&mut self, code: u32, length: u32, symbol: u8, ac: bool) {
        let spare = LOOKUP - length;
        let first = (code << spare) as usize;
        self.entries[first..first + (1 << spare)].fill(Entry::of(symbol, length, ac));
    }

    fn pair(&self, bits: usize) -> Pair {
        let first = self.entries[bits];
        let used = first.bits();
        if first.0 == 0 || first.run() == END || used >= LOOKUP {
            return Pair::of(first, None);
        }
        // The bits behind the lookup are unknown, so the second code has to end within it.
        let second = self.entries[bits << used & ((1 << LOOKUP) - 1)];
        Pair::of(first, (second.0 != 0 && used + second.code() <= LOOKUP).then_some(second))
    }

    /// The symbols that the upper bits of `bits` begin with, values left aside.
    #[inline(always)]
    pub fn look_up_pair(&self, bits: u64) -> Pair {
        self.pairs[(bits >> (64 - LOOKUP)) as usize]
    }

    /// True if it was built from this segment.
    pub fn is_of(&self, definition: &[u8]) -> bool {
        self.definition == definition
    }

    /// The symbol that the upper 16 bits of `bits` begin with.
    #[inline(always)]
    pub fn look_up(&self, bits: u64, ac: bool) -> Option<Entry> {
        let entry = self.entries[(bits >> (64 - LOOKUP)) as usize];
        if entry.0 != 0 {
            return Some(entry);
        }
        self.search(bits, ac)
    }

    #[cold]
    fn search(&self, bits: u64, ac: bool) -> Option<Entry> {
        let code = (bits >> 48) as u32;
        let length = (LOOKUP as usize + 1..=16).find(|&length| code < self.limits[length])?;
        let place = (code >> (16 - length)) as i32 + self.offsets[length];
        let symbol = *self.symbols.get(usize::try_from(place).ok()?)?;
        Some(Entry::of(symbol, length as u32, ac))
    }
}
