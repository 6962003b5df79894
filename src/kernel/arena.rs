//! One piece of memory, handed out in parts that are taken in the same order every time: the activations of a pass.

use std::marker::PhantomData;

use super::view::{Number, ViewMut};

/// Every part begins at a multiple of so many bytes: what the widest access of any kernel or product asks for.
pub const ALIGNMENT: usize = 256;

/// Memory that is handed out from its beginning on.
#[derive(Debug)]
pub struct Arena<'a> {
    at: *mut u8,
    len: usize,
    taken: usize,
    lifetime: PhantomData<&'a mut u8>,
}

impl<'a> Arena<'a> {
    pub fn new(memory: ViewMut<'a, u8>) -> Self {
        Arena { at: memory.as_ptr(), len: memory.len(), taken: 0, lifetime: PhantomData }
    }

    /// Bytes that `take` takes. Nothing may read or write what it makes of them.
    pub(crate) fn measure<T>(take: impl FnOnce(&mut Arena<'static>) -> T) -> usize {
        let mut nowhere =
            Arena { at: std::ptr::null_mut(), len: usize::MAX, taken: 0, lifetime: PhantomData };
        take(&mut nowhere);
        nowhere.taken
    }

    /// The next `len` elements, with the contents of their last use.
    pub fn take<T: Number>(&mut self, len: usize) -> ViewMut<'a, T> {
        let (at, bytes) = (self.taken, (len * size_of::<T>()).next_multiple_of(ALIGNMENT));
        assert!(bytes <= self.len - at, "an arena of {} bytes ends at a part of {len}", self.len);
        self.taken += bytes;
        // SAFETY: these bytes are handed out once, and the memory is borrowed for 'a.
        unsafe { ViewMut::new(self.at.wrapping_add(at).cast(), len) }
    }
}
