//! Large buffers in huge pages. Parameters, moments, packed weights and activations are hundreds of megabytes that
//! kernels walk through in strides; in pages of 4 KiB, the processor looks up addresses where it could multiply.

use std::alloc::{GlobalAlloc, Layout, System};

/// The system's allocator, which asks for huge pages behind whatever may hold some.
pub struct HugePages;

/// Bytes from which on a buffer is asked about: two huge pages, one of which lies in it whole.
const LARGE: usize = 4 << 20;

// SAFETY: memory is the system allocator's; advice changes neither its place nor what is in it.
unsafe impl GlobalAlloc for HugePages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        advised(System.alloc(layout), layout.size())
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        advised(System.alloc_zeroed(layout), layout.size())
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        System.dealloc(at, layout)
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        advised(System.realloc(at, layout, size), size)
    }
}

/// `at`, after asking for huge pages behind the whole pages of its `size` bytes. A system that has none refuses,
/// which changes nothing.
#[inline]
fn advised(at: *mut u8, size: usize) -> *mut u8 {
    #[cfg(target_os = "linux")]
    if size >= LARGE && !at.is_null() {
        const PAGE: usize = 4096;
        let skipped = at.align_offset(PAGE);
        let len = (size - skipped) / PAGE * PAGE;
        // SAFETY: the range lies in memory that was just handed out; the advice does not touch its contents.
        unsafe {
            libc::madvise(at.wrapping_add(skipped).cast(), len, libc::MADV_HUGEPAGE);
        }
    }
    at
}
