//! What the networks of the paper's Table 1 have besides the final ones.

use candle_core::{DType, Device, Result, Tensor};
use pggan_model::weights::{File, SnapshotHeader, Writer};
use pggan_model::{Discriminator, Generator, GeneratorNorm, Growth, ModelConfig, Noise};

use crate::{draw, networks, noise, tiny, variants};

const FULL: Growth = Growth { level: 3, alpha: 1.0 };

fn worst(a: &Tensor, b: &Tensor) -> Result<f64> {
    (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar()
}

/// Weights drawn with the standard deviation that others are multiplied by.
#[test]
fn plain_weights_are_the_equalized_ones_at_the_start() -> Result<()> {
    let equalized = tiny(8);
    let plain = ModelConfig { equalized: false, ..equalized.clone() };
    let g =
        |config: &ModelConfig| Generator::new(config, DType::F64, &Device::Cpu, &mut draw).unwrap();
    let d = |config: &ModelConfig| {
        Discriminator::new(config, DType::F64, &Device::Cpu, &mut draw).unwrap()
    };
    let z = noise("z", &[4, equalized.latent_size()])?;
    let images = g(&equalized).forward_only(&z, None, FULL)?;
    assert!(worst(&images, &g(&plain).forward_only(&z, None, FULL)?)? < 1e-12);
    let scores = |config: &ModelConfig| d(config).forward(&images, FULL, 1);
    assert!(worst(&scores(&equalized)?.0, &scores(&plain)?.0)? < 1e-12);
    let deviation = |config: &ModelConfig| -> Result<f64> {
        let g = g(config);
        let conv = g.params().iter().find(|p| p.name == "level03.conv1.weight").unwrap();
        conv.value.sqr()?.mean_all()?.sqrt()?.to_scalar()
    };
    let ratio = deviation(&plain)? / deviation(&equalized)?;
    assert!((ratio - (2.0 / 36.0f64).sqrt()).abs() < 1e-12, "{ratio}");
    Ok(())
}

#[test]
fn labels_join_before_or_after_the_latents_are_normalized() -> Result<()> {
    let tensorflow = ModelConfig { label_size: 3, ..tiny(8) };
    let theano = ModelConfig { normalize_labels: false, ..tensorflow.clone() };
    let plain = ModelConfig { normalize_latents: false, ..tensorflow.clone() };
    let z = noise("z", &[2, tensorflow.latent_size()])?;
    let labels = noise("labels", &[2, 3])?;
    let images = |config: &ModelConfig, z: &Tensor, labels: &Tensor| {
        networks(config).0.generate(z, Some(labels), FULL)
    };
    let unit = |x: &Tensor| x.broadcast_div(&(x.sqr()?.mean_keepdim(1)? + 1e-8)?.sqrt()?);
    let both = unit(&Tensor::cat(&[&z, &labels], 1)?)?;
    let (z_of_both, labels_of_both) = (both.narrow(1, 0, 4)?, both.narrow(1, 4, 3)?);
    let first = images(&tensorflow, &z, &labels)?;
    assert!(worst(&first, &images(&plain, &z_of_both, &labels_of_both)?)? < 1e-12);
    let second = images(&theano, &z, &labels)?;
    assert!(worst(&second, &images(&plain, &unit(&z)?, &labels)?)? < 1e-12);
    assert!(worst(&first, &second)? > 1e-3);
    Ok(())
}

#[test]
fn tanh_bounds_the_blended_images() -> Result<()> {
    let linear = ModelConfig { g_norm: GeneratorNorm::None, ..tiny(8) };
    let [bounded, ..] = variants(8);
    let bounded = ModelConfig { g_output: bounded.g_output, ..linear.clone() };
    let z = (noise("z", &[3, 4])? * 3.0)?;
    for growth in [FULL, Growth { level: 3, alpha: 0.4 }] {
        let free = networks(&linear).0.generate(&z, None, growth)?;
        let images = networks(&bounded).0.generate(&z, None, growth)?;
        assert!(worst(&images, &free.tanh()?)? < 1e-12);
    }
    Ok(())
}

/// In training an image depends on its batch, in evaluation it does not, and the two agree where every batch was the same.
#[test]
fn batch_norm_remembers_what_it_saw() -> Result<()> {
    let [config, ..] = variants(8);
    let (mut g, _) = networks(&config);
    let z = noise("z", &[4, config.latent_size()])?;
    let alone = z.narrow(0, 1, 1)?;
    let of_batch = g.forward_only(&z, None, FULL)?;
    let by_itself = g.forward_only(&alone, None, FULL)?;
    assert!(worst(&of_batch.narrow(0, 1, 1)?, &by_itself)? > 1e-3);

    let mut average = g.duplicate().unwrap();
    for step in 0..3 {
        let (images, tape) = g.forward(&z, None, FULL)?;
        let grads = g.backward(tape, &images.ones_like()?)?;
        g.params_mut().observe(&grads)?;
        let keep = if step == 0 { 0.9 } else { 0.5 };
        average.params_mut().update_beside(g.params_mut(), |_, average, value| {
            average.value = ((&average.value * keep)? + (&*value * (1.0 - keep))?)?;
            Ok(())
        })?;
    }
    let expected = of_batch.permute((0, 3, 1, 2))?;
    for g in [&g, &average] {
        assert!(worst(&expected, &g.generate(&z, None, FULL)?)? < 1e-12);
        let one = g.generate(&alone, None, FULL)?;
        assert!(worst(&expected.narrow(0, 1, 1)?, &one)? < 1e-12);
    }

    // It is in the files, and what is not finite never gets there.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    let mut writer = Writer::new(&"networks").unwrap();
    writer.params("g", g.params()).unwrap();
    writer.write(&path).unwrap();
    let (mut read, _) = networks(&config);
    File::open(&path).unwrap().load("g", read.params_mut()).unwrap();
    assert!(worst(&expected, &read.generate(&z, None, FULL)?)? < 1e-5);
    let (images, tape) = g.forward(&(&z * f64::NAN)?, None, FULL)?;
    let grads = g.backward(tape, &images)?;
    g.params_mut().observe(&grads)?;
    assert!(worst(&expected, &g.generate(&z, None, FULL)?)? < 1e-12);
    Ok(())
}

#[test]
fn noise_of_no_strength_is_none() -> Result<()> {
    for config in variants(8) {
        let (_, d) = networks(&config);
        for growth in [FULL, Growth { level: 3, alpha: 0.4 }, Growth::full(2)] {
            let r = growth.resolution();
            let images = noise("images", &[4, r, r, config.channels])?;
            let draws = noise("draws", &[4, d.noise_channels(growth)])?;
            let scores = |strength| {
                let noise = Noise { strength, draws: draws.clone() };
                Ok::<_, candle_core::Error>(d.forward_with_noise(&images, growth, 1, &noise)?.0)
            };
            let quiet = d.forward(&images, growth, 1)?.0;
            assert!(worst(&quiet, &scores(0.0)?)? < 1e-12);
            assert!(worst(&quiet, &scores(0.5)?)? > 1e-3);
        }
    }
    Ok(())
}

#[test]
fn minibatch_discrimination_begins_with_what_suits_the_images() -> Result<()> {
    let [_, config, _] = variants(8);
    let (_, mut d) = networks(&config);
    let images = (noise("images", &[12, 4, 4, config.channels])? * 20.0)?;
    let before = d.forward(&images, Growth::full(2), 1)?.0;
    d.calibrate(&images, Growth::full(2), 12).unwrap();
    let after = d.forward(&images, Growth::full(2), 1)?.0;
    assert!(worst(&before, &after)? > 1e-6);
    // A second time there is nothing to do, and minibatches matter to minibatch stddev alone.
    d.calibrate(&images, Growth::full(2), 6).unwrap();
    assert!(worst(&after, &d.forward(&images, Growth::full(2), 1)?.0)? < 1e-9);
    assert!(d.calibrate(&images.zeros_like()?, Growth::full(2), 12).is_err());
    assert!(d.calibrate(&images, Growth::full(2), 13).is_err());
    Ok(())
}

#[test]
fn one_to_four_colour_channels() -> Result<()> {
    for channels in 1..=4 {
        let config = ModelConfig { channels, ..tiny(8) };
        let g = Generator::new(&config, DType::F32, &Device::Cpu, &mut draw).unwrap();
        let d = Discriminator::new(&config, DType::F32, &Device::Cpu, &mut draw).unwrap();
        for growth in [FULL, Growth { level: 3, alpha: 0.4 }, Growth::full(2)] {
            let r = growth.resolution();
            let z = noise("z", &[4, 4])?.to_dtype(DType::F32)?;
            assert_eq!(g.generate(&z, None, growth)?.dims(), [4, channels, r, r]);
            let (images, tape) = g.forward(&z, None, growth)?;
            let (scores, d_tape) = d.forward(&images, growth, 1)?;
            let grad = d.image_grad(d_tape, &scores.ones_like()?)?;
            assert_eq!(grad.dims(), images.dims());
            g.backward(tape, &grad)?;
        }
    }
    Ok(())
}

/// Snapshots from before these settings.
#[test]
fn older_headers_are_of_the_papers_networks() {
    let old = serde_json::json!({
        "format": 1, "level": 3, "alpha": 0.5, "images_shown": 12_000, "dataset": "faces",
        "model": {
            "resolution": 8, "channels": 3, "fmap_base": 32, "fmap_decay": 1.0, "fmap_max": 4,
            "latent_size": 0, "label_size": 0, "mbstd_group": 4, "fused_scale": true,
            "normalize_latents": true, "pixelnorm_epsilon": 1e-8,
        }
    });
    let header: SnapshotHeader = serde_json::from_value(old).unwrap();
    assert_eq!(header.model, tiny(8));
}
