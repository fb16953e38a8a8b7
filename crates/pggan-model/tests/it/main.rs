//! Tests of the networks as a whole.
#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod export;
mod gradients;
mod growth;
mod import;
mod shapes;
mod variants;
mod weights;

use candle_core::{DType, Device, Result, Tensor};
use pggan_model::{
    Activation, Discriminator, DiscriminatorNorm, Generator, GeneratorNorm, ModelConfig,
    OutputActivation, Params,
};

/// A network small enough for finite differences.
fn tiny(resolution: usize) -> ModelConfig {
    ModelConfig { resolution, fmap_base: 32, fmap_max: 4, ..ModelConfig::default() }
}

/// Networks that are not the paper's own: row (a) of its Table 1, row (e*) with labels, and one with all that bends.
fn variants(resolution: usize) -> [ModelConfig; 3] {
    let first = ModelConfig {
        equalized: false,
        normalize_latents: false,
        g_activation: Activation::Relu,
        g_norm: GeneratorNorm::BatchNorm,
        g_output: OutputActivation::Tanh,
        d_norm: DiscriminatorNorm::LayerNorm,
        mbstd_group: 0,
        fused_scale: false,
        ..tiny(resolution)
    };
    let star = ModelConfig {
        channels: 2,
        label_size: 2,
        normalize_labels: false,
        g_norm: GeneratorNorm::None,
        mbstd_group: 0,
        mbdisc_kernels: 3,
        fused_scale: false,
        ..tiny(resolution)
    };
    let bent = ModelConfig {
        channels: 4,
        g_activation: Activation::Relu,
        d_activation: Activation::Relu,
        d_norm: DiscriminatorNorm::LayerNorm,
        mbdisc_kernels: 2,
        // Behind ReLU many a pixel is nearly 0 everywhere, where pixel norm bends too sharply for finite differences.
        pixelnorm_epsilon: 1e-2,
        ..tiny(resolution)
    };
    [first, star, bent]
}

/// Values that look random and depend on nothing but the name.
fn draw(name: &str, values: &mut [f32]) {
    let mut state = name.bytes().fold(17u64, |h, b| h.wrapping_mul(131).wrapping_add(u64::from(b)));
    for v in values {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        *v = ((state >> 40) as f32 / 8_388_608.0 - 1.0) * 1.7; // of about unit variance
    }
}

fn noise(name: &str, shape: &[usize]) -> Result<Tensor> {
    let mut values = vec![0f32; shape.iter().product()];
    draw(name, &mut values);
    Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(DType::F64)
}

/// Both networks in f64, with biases that are not zero and gains that are not one.
fn networks(config: &ModelConfig) -> (Generator, Discriminator) {
    let mut g = Generator::new(config, DType::F64, &Device::Cpu, &mut draw).unwrap();
    let mut d = Discriminator::new(config, DType::F64, &Device::Cpu, &mut draw).unwrap();
    for params in [g.params_mut(), d.params_mut()] {
        params
            .update(|_, name, value| {
                if name.ends_with("bias") {
                    *value = (noise(name, value.dims())? * 0.1)?;
                }
                if name.ends_with("gain") {
                    *value = noise(name, value.dims())?.affine(0.2, 1.0)?;
                }
                Ok(())
            })
            .unwrap();
    }
    (g, d)
}

/// Moves one number of one parameter by `h`.
fn nudge(params: &mut Params, position: usize, element: usize, h: f64) {
    params
        .update(|i, _, value| {
            if i == position {
                let mut values = value.flatten_all()?.to_vec1::<f64>()?;
                values[element] += h;
                *value = Tensor::from_vec(values, value.shape(), &Device::Cpu)?;
            }
            Ok(())
        })
        .unwrap();
}
