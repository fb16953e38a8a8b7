//! Single convolution layers of a Progressive GAN in the three directions, beside candle's matrix
//! product.
//!
//! `cargo bench -p pggan-ops -- same/512` picks by name; `RAYON_NUM_THREADS` sets the threads.
//! Criterion's elements are floating-point operations of the direct algorithm at the higher
//! resolution, so that layers compare: a fast algorithm may exceed what the machine can do.

use std::hint::black_box;
use std::time::Instant;

use candle_core::{Device, Result, Tensor};
use criterion::{Bencher, Criterion, Throughput, criterion_group, criterion_main};
use pggan_ops::conv::{Kernel, Resample};
use pggan_ops::pool::keep_awake;

/// What the binaries use: fresh pages for each result would be a fifth of a short layer's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Input channels, output channels, edge of the input, batch.
const SAME: [(usize, usize, usize, usize); 13] = [
    (512, 512, 4, 16),
    (512, 512, 8, 16),
    (512, 512, 16, 16),
    (256, 256, 16, 16),
    (256, 256, 32, 16),
    (256, 256, 64, 4),
    (128, 128, 128, 2),
    (128, 128, 16, 16),
    (128, 128, 8, 16),
    (64, 64, 64, 16),
    (32, 32, 32, 16),
    (16, 16, 64, 16),
    (8, 8, 128, 16),
];
const UP: [(usize, usize, usize, usize); 8] = [
    (512, 512, 4, 16),
    (512, 512, 8, 16),
    (512, 256, 32, 4),
    (256, 128, 64, 4),
    (128, 128, 8, 16),
    (128, 64, 64, 4),
    (64, 32, 32, 16),
    (16, 8, 64, 16),
];

/// Numbers without a pattern that a kernel could profit from.
fn noise(shape: &[usize]) -> Result<Tensor> {
    let count = shape.iter().product::<usize>() as u32;
    let value = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    Tensor::from_vec((0..count).map(value).collect::<Vec<_>>(), shape, &Device::Cpu)
}

fn layer(
    criterion: &mut Criterion,
    resample: Resample,
    (ci, co, edge, batch): (usize, usize, usize, usize),
    size: usize,
) -> Result<()> {
    let x = noise(&[batch, edge, edge, ci])?;
    let weight = noise(&[co, ci, size, size])?;
    let kernel = Kernel::new(&weight, 0.01, resample)?;
    let dy = kernel.forward(&x)?.ones_like()?;
    let high = edge.max(dy.dim(1)?);

    let name = format!("{resample:?}/{ci}->{co} k{size} {edge}x{edge} b{batch}").to_lowercase();
    let mut group = criterion.benchmark_group(name);
    group
        .throughput(Throughput::Elements(2 * (size * size * ci * co * high * high * batch) as u64));
    group.bench_function("forward", |b| as_in_a_step(b, || kernel.forward(black_box(&x))));
    group.bench_function("input_grad", |b| as_in_a_step(b, || kernel.input_grad(black_box(&dy))));
    group.bench_function("weight_grad", |b| {
        as_in_a_step(b, || kernel.weight_grad(black_box(&x), &dy));
    });
    group.finish();
    Ok(())
}

/// With the threads kept awake, as they are for the time of a training step.
fn as_in_a_step<T>(bencher: &mut Bencher<'_>, mut layer: impl FnMut() -> T) {
    bencher.iter_custom(|iterations| {
        let _awake = keep_awake();
        let start = Instant::now();
        for _ in 0..iterations {
            black_box(layer());
        }
        start.elapsed()
    });
}

fn sgemm(criterion: &mut Criterion) -> Result<()> {
    let n = 1024;
    let (a, b) = (noise(&[n, n])?, noise(&[n, n])?);
    let mut group = criterion.benchmark_group("sgemm");
    group.throughput(Throughput::Elements(2 * (n * n * n) as u64));
    group.bench_function("candle 1024", |bench| bench.iter(|| black_box(&a).matmul(&b)));
    group.finish();
    Ok(())
}

fn all(criterion: &mut Criterion) {
    let run = |criterion: &mut Criterion| -> Result<()> {
        sgemm(criterion)?;
        for shape in SAME {
            layer(criterion, Resample::Same, shape, 3)?;
        }
        for (ci, co, edge, batch) in UP {
            layer(criterion, Resample::Up, (ci, co, edge, batch), 3)?;
            layer(criterion, Resample::Down, (co, ci, 2 * edge, batch), 3)?;
        }
        layer(criterion, Resample::Same, (3, 128, 128, 4), 1)?;
        layer(criterion, Resample::Same, (128, 3, 128, 4), 1)?;
        layer(criterion, Resample::Same, (8192, 512, 1, 16), 1)
    };
    // As the command line does, so that the thread that calls is one of those that work.
    let pool = rayon::ThreadPoolBuilder::new().use_current_thread();
    pool.build_global().expect("the only pool");
    run(criterion).expect("the shapes of every layer belong together");
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_secs(1));
    targets = all
}
criterion_main!(benches);
