//! Sizes against the paper's, and refusals of what does not fit.

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator, Growth, ModelConfig};

use crate::{draw, networks, noise, tiny};

/// Parameters of G and D, counted from the official code's formulas.
#[test]
fn parameter_counts_are_the_official_ones() {
    let sized = |resolution, fmap_base, fmap_max| ModelConfig {
        resolution,
        fmap_base,
        fmap_max,
        ..ModelConfig::default()
    };
    for (config, g_count, d_count) in [
        (sized(1024, 8192, 512), 23_079_115, 23_087_249),
        (sized(128, 8192, 512), 22_933_394, 22_941_313),
        (sized(32, 8192, 512), 20_719_628, 20_726_785),
        (sized(128, 2048, 512), 13_629_810, 13_636_897),
        (sized(32, 4096, 128), 1_296_908, 1_298_689),
    ] {
        let nothing = &mut |_: &str, _: &mut [f32]| ();
        let g = Generator::new(&config, DType::F32, &Device::Cpu, nothing).unwrap();
        assert_eq!(g.params().count(), g_count);
        assert_eq!(config.generator_parameters(), g_count);
        let d = Discriminator::new(&config, DType::F32, &Device::Cpu, nothing).unwrap();
        assert_eq!(d.params().count(), d_count);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = tiny(8);
    let (g, d) = networks(&config);
    let z = noise("z", &[4, config.latent_size()]).unwrap();
    let says = |e: candle_core::Error, words: &str| {
        assert!(e.to_string().contains(words), "{e}");
    };
    says(
        g.generate(&z, None, Growth::full(4)).unwrap_err(),
        "level 4 of a network with levels 2 to 3",
    );
    let short = noise("z", &[4, 3]).unwrap();
    says(g.generate(&short, None, Growth::full(3)).unwrap_err(), "latents of 3");
    let images = noise("x", &[4, 4, 4, 3]).unwrap();
    says(d.forward(&images, Growth::full(3), 1).unwrap_err(), "4x4 pixels at level 3");
    let images = noise("x", &[6, 8, 8, 3]).unwrap();
    says(d.forward(&images, Growth::full(3), 1).unwrap_err(), "6 samples");
}

/// The engine's own kernels (f32) and the generic path (f64) are the same network.
#[test]
fn fast_and_generic_path_agree() -> candle_core::Result<()> {
    let config = ModelConfig { resolution: 32, fmap_base: 512, fmap_max: 48, ..tiny(32) };
    for growth in [Growth::full(5), Growth { level: 5, alpha: 0.4 }, Growth::full(2)] {
        let wide = Generator::new(&config, DType::F64, &Device::Cpu, &mut draw).unwrap();
        let fast = Generator::new(&config, DType::F32, &Device::Cpu, &mut draw).unwrap();
        let z = noise("z", &[4, config.latent_size()])?;
        let images = wide.forward_only(&z, None, growth)?;
        let (images32, tape) = fast.forward(&z.to_dtype(DType::F32)?, None, growth)?;
        near(&images, &images32, 1e-4)?;
        let weight = noise("weight", images.dims())?;
        let (_, wide_tape) = wide.forward(&z, None, growth)?;
        let grads = wide.backward(wide_tape, &weight)?;
        let grads32 = fast.backward(tape, &weight.to_dtype(DType::F32)?)?;
        for (a, b) in grads.iter().zip(grads32.iter()) {
            assert_eq!(a.is_some(), b.is_some());
            if let (Some(a), Some(b)) = (a, b) {
                near(a, b, 1e-3)?;
            }
        }
    }
    Ok(())
}

fn near(a: &Tensor, b: &Tensor, tolerance: f64) -> candle_core::Result<()> {
    let b = b.to_dtype(DType::F64)?;
    let size = a.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
    let worst = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f64>()?;
    assert!(worst <= tolerance * size, "{worst:e} of {size:e}");
    Ok(())
}
