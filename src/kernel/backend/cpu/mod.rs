//! The processor as a backend: memory, and the operations on it.

mod operations;

use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::Arc;

use super::{Memory, Needs};
use crate::kernel::element::Element;
use crate::kernel::scratch::Scratch;
use crate::kernel::view::{Number, View, ViewMut};
use crate::kernel::Cpu;

/// The processor, with activations and products of `K`.
#[derive(Debug)]
pub struct CpuBackend<K> {
    cpu: Arc<Cpu>,
    element: PhantomData<K>,
}

impl<K: Element> CpuBackend<K> {
    pub fn new(cpu: Arc<Cpu>) -> Self {
        CpuBackend { cpu, element: PhantomData }
    }

    pub fn cpu(&self) -> &Arc<Cpu> {
        &self.cpu
    }
}

/// Memory of the processor, on cache lines.
#[derive(Debug)]
pub struct Buffer<T> {
    memory: Scratch,
    len: usize,
    of: PhantomData<T>,
}

type Done = Result<(), Infallible>;

/// Memory of a pass. To compute attention's output anew takes less time than to store and load it.
pub const NEEDS: Needs =
    Needs { keeps_attention: false, norms_pooled_alone: true, scratch: |_| 0, scatter: |_| 0 };

/// The values of a view.
fn slice<T: Number>(view: View<'_, T>) -> &[T] {
    // SAFETY: whoever made the view promised that kernels may read it for its lifetime, and the processor's are Rust.
    unsafe { std::slice::from_raw_parts(view.as_ptr(), view.len()) }
}

/// The values of a view that is written.
fn slice_mut<T: Number>(view: ViewMut<'_, T>) -> &mut [T] {
    // SAFETY: as of `slice`; nobody else uses them for its lifetime.
    unsafe { std::slice::from_raw_parts_mut(view.as_ptr(), view.len()) }
}

impl<K: Element> Memory for CpuBackend<K> {
    type Buffer<T: Number> = Buffer<T>;
    type Error = Infallible;

    fn zeros<T: Number>(&self, len: usize) -> Result<Buffer<T>, Infallible> {
        Ok(Buffer { memory: Scratch::zeroed::<T>(len), len, of: PhantomData })
    }
    fn view<'a, T: Number>(&self, buffer: &'a Buffer<T>) -> View<'a, T> {
        let values = buffer.memory.view::<T>(buffer.len);
        // SAFETY: the buffer is borrowed for 'a.
        unsafe { View::new(values.as_ptr(), values.len()) }
    }
    fn view_mut<'a, T: Number>(&self, buffer: &'a mut Buffer<T>) -> ViewMut<'a, T> {
        let values = buffer.memory.room::<T>(buffer.len);
        // SAFETY: the buffer is borrowed for 'a, by nobody else.
        unsafe { ViewMut::new(values.as_mut_ptr(), values.len()) }
    }
    fn write<T: Number>(&self, to: ViewMut<T>, values: &[T]) -> Done {
        slice_mut(to).copy_from_slice(values);
        Ok(())
    }
    fn read<T: Number>(&self, from: View<T>) -> Result<Vec<T>, Infallible> {
        Ok(slice(from).to_vec())
    }
    fn copy<T: Number>(&self, to: ViewMut<T>, from: View<T>) -> Done {
        slice_mut(to).copy_from_slice(slice(from));
        Ok(())
    }
    fn clear<T: Number>(&self, to: ViewMut<T>) -> Done {
        slice_mut(to).fill(T::zeroed());
        Ok(())
    }
}
