//! Every gradient against finite differences in f64, with a layer fading in and at alpha 1.

use candle_core::{DType, Result, Tensor};
use pggan_model::{Discriminator, Generator, Grads, Growth, ModelConfig, Noise, Params, Tape};

use crate::{networks, noise, nudge, tiny, variants};

/// Compares `grads` with central differences of `loss` in a sample of each parameter's elements.
///
/// Activations and distances have kinks, so a difference across one is wrong: where steps of two sizes disagree, a kink lies
/// between and a smaller step decides.
fn check<N>(
    network: &mut N,
    params: impl Fn(&mut N) -> &mut Params,
    grads: &Grads,
    loss: impl Fn(&N) -> f64,
) {
    let shapes: Vec<(String, usize)> =
        params(network).iter().map(|p| (p.name.clone(), p.value.elem_count())).collect();
    let mut compared = 0;
    for (position, (name, count)) in shapes.iter().enumerate() {
        let Some(gradient) = grads.get(position) else { continue };
        let gradient = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        let scale = gradient.iter().fold(0f64, |m, g| m.max(g.abs()));
        for element in (0..*count).step_by((count / 5).max(1)) {
            let mut at = |h: f64| {
                nudge(params(network), position, element, h);
                let value = loss(network);
                nudge(params(network), position, element, -h);
                value
            };
            let error = [1e-5, 1e-6, 3e-5, 1e-7]
                .into_iter()
                .map(|h| {
                    let measured = (at(h) - at(-h)) / (2.0 * h);
                    (measured - gradient[element]).abs() / scale.max(1e-3)
                })
                .fold(f64::INFINITY, f64::min);
            assert!(error < 1e-6, "{name}[{element}]: relative error {error:e}");
            compared += 1;
        }
    }
    assert!(compared > 20, "only {compared} elements compared");
}

/// Networks, and how far they have grown: to their full size, fading in the last layer or not, and less far.
fn cases() -> Vec<(ModelConfig, Vec<Growth>)> {
    let fused = tiny(16);
    let unfused = ModelConfig { fused_scale: false, ..fused.clone() };
    let labelled = ModelConfig { label_size: 2, channels: 1, mbstd_group: 2, ..fused.clone() };
    let foreign = ModelConfig { widths: vec![5, 4, 3], position_bias: true, ..unfused.clone() };
    let papers = [fused, unfused, labelled, foreign];
    let papers = papers.map(|config| (config, vec![4, 2]));
    let variants = variants(8).map(|config| (config, vec![3]));
    let stages = |(config, levels): (ModelConfig, Vec<u32>)| {
        let fading = Growth { level: levels[0], alpha: 0.3 };
        (config, levels.into_iter().map(Growth::full).chain([fading]).collect())
    };
    papers.into_iter().chain(variants).map(stages).collect()
}

/// A forward pass, with noise in the networks that have minibatch discrimination.
fn forward(
    d: &Discriminator,
    images: &Tensor,
    growth: Growth,
    parts: usize,
) -> Result<(Tensor, Tape)> {
    if d.config().mbdisc_kernels == 0 {
        return d.forward(images, growth, parts);
    }
    let draws = noise("draws", &[images.dim(0)?, d.noise_channels(growth)])?;
    d.forward_with_noise(images, growth, parts, &Noise { strength: 0.2, draws })
}

fn labels(config: &ModelConfig) -> Option<Tensor> {
    (config.label_size > 0).then(|| noise("labels", &[4, config.label_size]).unwrap())
}

#[test]
fn generator() -> Result<()> {
    for (config, stages) in cases() {
        for growth in stages.into_iter().chain([Growth { level: 3, alpha: 0.6 }]) {
            let (mut g, _) = networks(&config);
            let z = noise("z", &[4, config.latent_size()])?;
            let r = growth.resolution();
            let weight = noise("weight", &[4, r, r, config.channels])?;
            let loss = |g: &Generator| {
                let images = g.forward_only(&z, labels(&config).as_ref(), growth).unwrap();
                (images * &weight).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let (_, tape) = g.forward(&z, labels(&config).as_ref(), growth)?;
            let grads = g.backward(tape, &weight)?;
            check(&mut g, Generator::params_mut, &grads, loss);
        }
    }
    Ok(())
}

#[test]
fn discriminator() -> Result<()> {
    for (config, stages) in cases() {
        for growth in stages {
            let (_, mut d) = networks(&config);
            let r = growth.resolution();
            let images = noise("images", &[8, r, r, config.channels])?;
            let weight = noise("weight", &[8, 1 + config.label_size])?;
            let loss = |d: &Discriminator| {
                let (scores, _) = forward(d, &images, growth, 2).unwrap();
                (scores * &weight).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let (_, tape) = forward(&d, &images, growth, 2)?;
            let mut grads = Grads::new(d.params());
            d.backward(tape, &weight, &mut grads)?;
            check(&mut d, Discriminator::params_mut, &grads, loss);

            // With respect to the images, along one direction.
            let along = noise("along", images.dims())?;
            let (_, tape) = forward(&d, &images, growth, 2)?;
            let gradient =
                (d.image_grad(tape, &weight)? * &along)?.sum_all()?.to_scalar::<f64>()?;
            let at = |h: f64| -> Result<f64> {
                let (scores, _) = forward(&d, &(&images + (&along * h)?)?, growth, 2)?;
                (scores * &weight)?.sum_all()?.to_scalar::<f64>()
            };
            let measured = (at(1e-6)? - at(-1e-6)?) / 2e-6;
            assert!((measured - gradient).abs() < 1e-6 * gradient.abs().max(1.0));
        }
    }
    Ok(())
}

/// The penalty of WGAN-GP, `mean (‖g‖ − γ)²`, and its gradient by way of the tangent.
#[test]
fn gradient_penalty() -> Result<()> {
    for (config, stages) in cases() {
        for growth in stages {
            let (_, mut d) = networks(&config);
            let r = growth.resolution();
            let images = noise("images", &[4, r, r, config.channels])?;
            let ones = score_column(4, 1 + config.label_size)?;
            let norms = |g: &Tensor| g.sqr()?.flatten_from(1)?.sum_keepdim(1)?.sqrt();
            let target = 0.5;
            let penalty = |d: &Discriminator| {
                let (_, tape) = forward(d, &images, growth, 1).unwrap();
                let g = d.image_grad(tape, &ones).unwrap();
                let off = (norms(&g).unwrap() - target).unwrap();
                off.sqr().unwrap().mean_all().unwrap().to_scalar::<f64>().unwrap()
            };
            let (_, tape) = forward(&d, &images, growth, 1)?;
            let (g, deltas) = d.image_grad_and_deltas(&tape, &ones)?;
            let norm = norms(&g)?;
            let factor = (((&norm - target)? / &norm)? * (2.0 / 4.0))?.reshape((4, 1, 1, 1))?;
            let mut grads = Grads::new(d.params());
            d.penalty_grads(tape, deltas, &g.broadcast_mul(&factor)?, &mut grads)?;
            check(&mut d, Discriminator::params_mut, &grads, penalty);
        }
    }
    Ok(())
}

fn score_column(n: usize, width: usize) -> Result<Tensor> {
    let row: Vec<f64> = (0..width).map(|i| if i == 0 { 1.0 } else { 0.0 }).collect();
    let row = Tensor::from_vec(row, (1, width), &candle_core::Device::Cpu)?;
    row.broadcast_as((n, width))?.contiguous()?.to_dtype(DType::F64)
}
