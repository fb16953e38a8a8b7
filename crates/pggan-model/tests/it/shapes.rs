//! Sizes against the paper's, and refusals of what does not fit.

use candle_core::{DType, Device, Tensor};
use pggan_model::{
    Discriminator, DiscriminatorNorm, Generator, GeneratorNorm, Grads, Growth, ModelConfig, Noise,
};

use crate::{draw, networks, noise, tiny, variants};

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

/// The networks of Table 1, 128x128: what differs from row (g) is counted by hand.
#[test]
fn parameter_counts_of_table_1() {
    let g = ModelConfig { resolution: 128, fmap_base: 2048, ..ModelConfig::default() };
    let a = ModelConfig {
        latent_size: 128,
        g_norm: GeneratorNorm::BatchNorm,
        d_norm: DiscriminatorNorm::LayerNorm,
        mbstd_group: 0,
        ..g.clone()
    };
    let star = ModelConfig { mbstd_group: 0, mbdisc_kernels: 100, ..g.clone() };
    // Batch norm has a gain and three statistics for each of the hidden layers' 3008 maps, layer norm 12 gains.
    let g_of_a = 13_629_810 - (512 - 128) * 16 * 512 + 4 * 3008;
    let without_stddev = 13_636_897 - 9 * 512;
    let d_of_star = without_stddev + 100 * 5 * 512 + 100 * 5 + 100 + 100;
    for (config, g_count, d_count) in [
        (g, 13_629_810, 13_636_897),
        (a, g_of_a, without_stddev + 12),
        (star, 13_629_810, d_of_star),
    ] {
        let nothing = &mut |_: &str, _: &mut [f32]| ();
        let g = Generator::new(&config, DType::F32, &Device::Cpu, nothing).unwrap();
        assert_eq!((g.params().count(), config.generator_parameters()), (g_count, g_count));
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
    let images = noise("x", &[4, 8, 8, 3]).unwrap();
    let few = Noise { strength: 0.1, draws: noise("draws", &[4, 3]).unwrap() };
    says(
        d.forward_with_noise(&images, Growth::full(3), 1, &few).unwrap_err(),
        "noise of [4, 3] draws, but [4, 17] are needed",
    );
}

/// The engine's own kernels (f32) and the generic path (f64) are the same network.
#[test]
fn fast_and_generic_path_agree() -> candle_core::Result<()> {
    let wide = |config| ModelConfig { fmap_base: 512, fmap_max: 48, ..config };
    let cases = [(tiny(32), 5)].into_iter().chain(variants(16).map(|config| (config, 4)));
    for (config, level) in cases.map(|(config, level)| (wide(config), level)) {
        for growth in [Growth::full(level), Growth { level, alpha: 0.4 }, Growth::full(2)] {
            // Gradients jump where an activation's input is zero: rounding may give one of some hundred thousand the other
            // slope, by chance and by processor (4e-3 of a gradient without AVX-512). A mistake is one at any latents.
            let mut agrees = false;
            for latents in ["z", "other z", "third z"] {
                agrees = agrees || gradients_agree(&config, growth, latents)?;
            }
            assert!(agrees, "gradients differ at {growth:?} of {config:?}");
        }
    }
    Ok(())
}

/// Whether the gradients of both paths do, the images' too, from such latents; that outputs do is asserted.
fn gradients_agree(
    config: &ModelConfig,
    growth: Growth,
    latents: &str,
) -> candle_core::Result<bool> {
    let slow = Generator::new(config, DType::F64, &Device::Cpu, &mut draw).unwrap();
    let fast = Generator::new(config, DType::F32, &Device::Cpu, &mut draw).unwrap();
    let z = noise(latents, &[4, config.latent_size()])?;
    let labels =
        (config.label_size > 0).then(|| noise("labels", &[4, config.label_size])).transpose()?;
    let labels32 = labels.as_ref().map(|l| l.to_dtype(DType::F32)).transpose()?;
    let (images, tape) = slow.forward(&z, labels.as_ref(), growth)?;
    let (images32, tape32) = fast.forward(&z.to_dtype(DType::F32)?, labels32.as_ref(), growth)?;
    let images_off = off(&images, &images32)?;
    assert!(images_off <= 1e-4, "{images_off:e}");
    let weight = noise("weight", images.dims())?;
    let grads = slow.backward(tape, &weight)?;
    let grads32 = fast.backward(tape32, &weight.to_dtype(DType::F32)?)?;
    let generators = near_grads(&grads, &grads32)?;

    let slow = Discriminator::new(config, DType::F64, &Device::Cpu, &mut draw).unwrap();
    let fast = Discriminator::new(config, DType::F32, &Device::Cpu, &mut draw).unwrap();
    let pass = |d: &Discriminator, images: &Tensor| {
        let draws = noise("draws", &[4, d.noise_channels(growth)])?;
        let draws = draws.to_dtype(images.dtype())?;
        let (scores, tape) =
            d.forward_with_noise(images, growth, 1, &Noise { strength: 0.1, draws })?;
        let (image, deltas) = d.image_grad_and_deltas(&tape, &scores.ones_like()?)?;
        let mut grads = Grads::new(d.params());
        d.backward(tape.clone(), &scores, &mut grads)?;
        d.penalty_grads(tape, deltas, &image, &mut grads)?;
        Ok::<_, candle_core::Error>((scores, image, grads))
    };
    let (scores, image, grads) = pass(&slow, &images)?;
    let (scores32, image32, grads32) = pass(&fast, &images.to_dtype(DType::F32)?)?;
    let scores_off = off(&scores, &scores32)?;
    assert!(scores_off <= 1e-4, "{scores_off:e}");
    Ok(generators && off(&image, &image32)? <= 1e-3 && near_grads(&grads, &grads32)?)
}

fn near_grads(grads: &Grads, grads32: &Grads) -> candle_core::Result<bool> {
    let sizes = grads.iter().flatten().map(largest).collect::<Result<Vec<_>, _>>()?;
    let whole = sizes.iter().fold(0f64, |whole, size| whole.max(*size));
    for (a, b) in grads.iter().zip(grads32.iter()) {
        assert_eq!(a.is_some(), b.is_some());
        if let (Some(a), Some(b)) = (a, b) {
            // Some are next to nothing: the layer norm of the next layer undoes a gain.
            let off = largest(&(a - b.to_dtype(DType::F64)?)?)?;
            let size = largest(a)?.max(1e-3 * whole);
            if off > 1e-3 * size {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn largest(x: &Tensor) -> candle_core::Result<f64> {
    x.abs()?.flatten_all()?.max(0)?.to_scalar()
}

/// The largest difference, in parts of the largest value.
fn off(a: &Tensor, b: &Tensor) -> candle_core::Result<f64> {
    Ok(largest(&(a - b.to_dtype(DType::F64)?)?)? / largest(a)?)
}
