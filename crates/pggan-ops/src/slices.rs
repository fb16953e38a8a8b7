//! The bridge between candle's tensors and the slices that the CPU kernels work on.

use std::cell::Cell;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Storage, Tensor, bail};

/// Whether the engine's own kernels apply: `f32` on the CPU. The rest takes the generic path.
pub(crate) fn is_fast(x: &Tensor) -> bool {
    x.dtype() == DType::F32 && x.device().is_cpu()
}

/// Calls `f` with the elements of `x` in row-major order; copies only if `x` is strided.
pub(crate) fn read<R>(x: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let x = x.contiguous()?;
    let (storage, layout) = x.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else { bail!("a CPU tensor is needed here") };
    let (from, to) = layout.contiguous_offsets().expect("made contiguous above");
    Ok(f(&storage.as_slice::<f32>()?[from..to]))
}

/// Calls `f` with the elements of a contiguous CPU `f32` tensor, to change them where they are.
pub(crate) fn write<R>(x: &Tensor, f: impl FnOnce(&mut [f32]) -> R) -> Result<R> {
    let op = Write { f: Cell::new(Some(f)), out: Cell::new(None) };
    x.inplace_op1(&op)?;
    Ok(op.out.into_inner().expect("candle runs the operation exactly once"))
}

/// A tensor on the CPU that takes over `data`.
pub(crate) fn tensor(data: Vec<f32>, shape: &[usize]) -> Result<Tensor> {
    Tensor::from_vec(data, shape, &Device::Cpu)
}

/// `x` itself where it may be overwritten: contiguous, and the whole of its own memory.
///
/// The callers hand over freshly made tensors; a view into a larger one is copied first.
pub(crate) fn owned(x: Tensor) -> Result<Tensor> {
    let whole = {
        let (storage, layout) = x.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("a CPU tensor is needed here") };
        layout.contiguous_offsets() == Some((0, storage.as_slice::<f32>()?.len()))
    };
    if whole { Ok(x) } else { x.force_contiguous() }
}

struct Write<F, R> {
    f: Cell<Option<F>>,
    out: Cell<Option<R>>,
}

impl<R, F: FnOnce(&mut [f32]) -> R> InplaceOp1 for Write<F, R> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let Some((from, to)) = layout.contiguous_offsets() else {
            bail!("a strided tensor cannot be changed in place")
        };
        let CpuStorage::F32(data) = storage else { bail!("an f32 tensor is needed here") };
        let f = self.f.take().expect("candle runs the operation exactly once");
        self.out.set(Some(f(&mut data[from..to])));
        Ok(())
    }
}
