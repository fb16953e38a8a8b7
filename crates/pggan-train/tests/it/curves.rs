//! The engine's own kernels (`f32`) and the generic path (`f64`) train alike.

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator, Growth, ModelConfig};
use pggan_train::loss::LossConfig;
use pggan_train::optim::{Average, OptimConfig, Optimizer};
use pggan_train::random;
use pggan_train::step::{Batch, discriminator_step, generator_step};

/// Losses of discriminator and generator over some steps, and norms of the penalty's gradients.
fn curve(dtype: DType, growth: Growth) -> Vec<[f64; 3]> {
    let config =
        ModelConfig { resolution: 16, fmap_base: 256, fmap_max: 24, ..ModelConfig::default() };
    let mut draw =
        |name: &str, values: &mut [f32]| random::normal(random::stream(7, name, 0, 0), values);
    let device = Device::Cpu;
    let mut g = Generator::new(&config, dtype, &device, &mut draw).unwrap();
    let mut d = Discriminator::new(&config, dtype, &device, &mut draw).unwrap();
    let mut g_ema = g.duplicate().unwrap();
    let optim = OptimConfig::default();
    let mut g_optim = Optimizer::new(&optim, g.params()).unwrap();
    let mut d_optim = Optimizer::new(&optim, d.params()).unwrap();
    let (n, r, loss) = (8, growth.resolution(), LossConfig::default());
    let mut seen = Vec::new();
    for step in 0..30u64 {
        let latents = |purpose| {
            let z = random::latents(7, purpose, step, n, config.latent_size(), &device).unwrap();
            z.to_dtype(dtype).unwrap()
        };
        // Discs of different places and colours.
        let real = (0..n * r * r * 3).map(|i| {
            let (sample, y, x, c) = (i / (r * r * 3), i / (r * 3) % r, i / 3 % r, i % 3);
            let centre = (sample + step as usize) % r;
            let far = x.abs_diff(centre).pow(2) + y.abs_diff(r / 2).pow(2);
            if far < r { 0.5 - 0.4 * c as f64 } else { -0.8 }
        });
        let real = Tensor::from_iter(real, &device).unwrap().reshape((n, r, r, 3)).unwrap();
        let real = real.to_dtype(dtype).unwrap();
        let mixing = random::mixing(7, step, n, &device).unwrap().to_dtype(dtype).unwrap();
        let fake = g.forward_only(&latents("d"), None, growth).unwrap();
        let batch = Batch { real: &real, fake: &fake, mixing: &mixing, labels: None, noise: None };
        let (grads, report) = discriminator_step(&d, batch, growth, &loss).unwrap();
        d_optim.step(d.params_mut(), &grads, 0.001).unwrap();
        let (grads, g_loss) =
            generator_step(&g, &d, &latents("g"), None, None, growth, &loss).unwrap();
        let average = Average { params: g_ema.params_mut(), beta: 0.99, level: growth.level };
        g_optim.step_and_average(g.params_mut(), &grads, 0.001, average).unwrap();
        seen.push([report.loss, report.norm, g_loss]);
    }
    seen
}

#[test]
fn fast_and_generic_path_train_alike() {
    for growth in [Growth { level: 4, alpha: 0.6 }, Growth::full(4)] {
        let (fast, generic) = (curve(DType::F32, growth), curve(DType::F64, growth));
        for (step, (fast, generic)) in fast.iter().zip(&generic).enumerate() {
            for (fast, generic) in fast.iter().zip(generic) {
                let off = (fast - generic).abs() / (1.0 + generic.abs());
                // Rounding grows from step to step, as Adam divides small gradients by themselves.
                let allowed = 3e-4 * ((step + 1) as f64).powf(1.5);
                assert!(off < allowed, "{growth:?} step {step}: {fast} {generic}");
            }
        }
        // And it does learn: the penalty has brought the norm towards 1.
        let (first, last) = (generic[0][1], generic[29][1]);
        assert!((last - 1.0).abs() < (first - 1.0).abs(), "{first} {last}");
    }
}
