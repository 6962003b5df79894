//! One piece of memory, handed out in parts that are taken in the same order every time: the arena of a pass.

use std::marker::PhantomData;

use super::{Number, ViewMut};

/// Every part begins at a multiple of as many bytes: what the widest access of any kernel or product asks for.
const ALIGNMENT: usize = 256;

/// Memory that is handed out from its beginning on.
#[derive(Debug)]
pub struct Room<'a> {
    address: u64,
    len: usize,
    taken: usize,
    of: PhantomData<&'a mut u8>,
}

impl<'a> Room<'a> {
    pub fn new(memory: ViewMut<'a, u8>) -> Self {
        Room { address: memory.address(), len: memory.len(), taken: 0, of: PhantomData }
    }

    /// Bytes that `take` takes. What it makes of them is nowhere, and given up.
    pub(crate) fn measure<T>(take: impl FnOnce(&mut Room<'static>) -> T) -> usize {
        let mut nowhere = Room { address: 0, len: usize::MAX, taken: 0, of: PhantomData };
        take(&mut nowhere);
        nowhere.taken
    }

    /// The next `len` elements. What is in them is left over from the last use.
    pub fn take<T: Number>(&mut self, len: usize) -> ViewMut<'a, T> {
        let (at, bytes) = (self.taken, (len * size_of::<T>()).next_multiple_of(ALIGNMENT));
        assert!(bytes <= self.len - at, "an arena of {} bytes ends at a part of {len}", self.len);
        self.taken += bytes;
        // SAFETY: these bytes are handed out once, and the memory is borrowed for 'a.
        unsafe { ViewMut::new(self.address + at as u64, len) }
    }
}
