//! Every loss: its gradients beside finite differences of its value, in `f64`.

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator, Grads, Growth, ModelConfig, Noise, Params};
use pggan_train::loss::{LossConfig, LossKind};
use pggan_train::random;
use pggan_train::step::{Batch, discriminator_step, generator_step};

const GROWTH: Growth = Growth { level: 3, alpha: 0.4 };

struct Case {
    g: Generator,
    d: Discriminator,
    real: Tensor,
    latents: Tensor,
    mixing: Tensor,
    labels: Tensor,
    noise: Option<Noise>,
}

impl Case {
    /// A minibatch of `n`, with noise in the discriminator or without.
    fn new(n: usize, noise: bool) -> Self {
        let config = ModelConfig {
            resolution: 8,
            channels: 1,
            fmap_base: 32,
            fmap_max: 4,
            label_size: 2,
            mbstd_group: 2,
            ..ModelConfig::default()
        };
        let device = Device::Cpu;
        let normal = |name: &str, shape: &[usize]| {
            let mut values = vec![0f32; shape.iter().product()];
            random::normal(random::stream(11, name, 0, 0), &mut values);
            Tensor::from_vec(values, shape, &device).unwrap().to_dtype(DType::F64).unwrap()
        };
        let mut draw = |name: &str, values: &mut [f32]| {
            random::normal(random::stream(5, name, 0, 0), values);
        };
        let labels: [[f64; 2]; 4] = [[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0]];
        let labels: Vec<f64> = labels.into_iter().cycle().take(n).flatten().collect();
        let d = Discriminator::new(&config, DType::F64, &device, &mut draw).unwrap();
        let noise = noise.then(|| {
            let channels = d.noise_channels(GROWTH);
            let draws = random::latents(9, "noise", 0, 3 * n, channels, &device).unwrap();
            Noise { strength: 0.1, draws: draws.to_dtype(DType::F64).unwrap() }
        });
        Self {
            g: Generator::new(&config, DType::F64, &device, &mut draw).unwrap(),
            d,
            real: normal("real", &[n, 8, 8, 1]),
            latents: normal("latents", &[n, config.latent_size()]),
            mixing: random::mixing(3, 0, n, &device).unwrap().to_dtype(DType::F64).unwrap(),
            labels: Tensor::from_vec(labels, (n, 2), &device).unwrap(),
            noise,
        }
    }

    fn discriminator(&self, loss: &LossConfig) -> (Grads, f64) {
        let fake = self.g.forward_only(&self.latents, Some(&self.labels), GROWTH).unwrap();
        let batch = Batch {
            real: &self.real,
            fake: &fake,
            mixing: &self.mixing,
            labels: Some(&self.labels),
            noise: self.noise.as_ref(),
        };
        let (grads, report) = discriminator_step(&self.d, batch, GROWTH, loss).unwrap();
        (grads, report.loss)
    }

    fn generator(&self, loss: &LossConfig) -> (Grads, f64) {
        let labels = Some(&self.labels);
        let noise = self.noise_of_generated();
        generator_step(&self.g, &self.d, &self.latents, labels, noise.as_ref(), GROWTH, loss)
            .unwrap()
    }

    fn noise_of_generated(&self) -> Option<Noise> {
        let Noise { strength, draws } = self.noise.as_ref()?;
        let draws = draws.narrow(0, 0, self.latents.dim(0).unwrap()).unwrap();
        Some(Noise { strength: *strength, draws })
    }
}

/// Moves one number of one parameter.
fn nudge(params: &mut Params, position: usize, element: usize, by: f64) {
    params
        .update(|i, _, value| {
            if i == position {
                let mut values = value.flatten_all()?.to_vec1::<f64>()?;
                values[element] += by;
                *value = Tensor::from_vec(values, value.shape(), value.device())?;
            }
            Ok::<(), candle_core::Error>(())
        })
        .unwrap();
}

/// The last number of every parameter that has a gradient.
fn check(
    case: &mut Case,
    loss: &LossConfig,
    params: impl Fn(&mut Case) -> &mut Params,
    step: impl Fn(&Case, &LossConfig) -> (Grads, f64),
) {
    let (grads, _) = step(case, loss);
    let mut compared = 0;
    for position in 0..grads.iter().len() {
        let Some(gradient) = grads.get(position) else { continue };
        let element = gradient.elem_count() - 1;
        let ours = gradient.flatten_all().unwrap().to_vec1::<f64>().unwrap()[element];
        let mut at = |by: f64| {
            nudge(params(case), position, element, by);
            let (_, value) = step(case, loss);
            nudge(params(case), position, element, -by);
            value
        };
        let difference = (at(1e-5) - at(-1e-5)) / 2e-5;
        let off = (ours - difference).abs() / (1.0 + difference.abs());
        assert!(off < 1e-6, "{loss:?}, parameter {position}: {ours} {difference}");
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}

#[test]
fn gradients_are_those_of_the_values() {
    let mut case = Case::new(4, false);
    let default = LossConfig::default;
    for loss in [
        default(),
        // Norms on both sides of the target, so that one side matters.
        LossConfig { one_sided: true, gradient_target: median_norm(&case), ..default() },
        LossConfig { gradient_target: 750.0, ..default() },
        LossConfig { kind: LossKind::Lsgan, ..default() },
        LossConfig { kind: LossKind::LsganReversed, label_weight: 0.3, ..default() },
    ] {
        check(&mut case, &loss, |c| c.d.params_mut(), Case::discriminator);
        check(&mut case, &loss, |c| c.g.params_mut(), Case::generator);
    }
}

/// The noise's draws are held while the numbers are nudged.
#[test]
fn gradients_are_those_of_the_values_with_noise() {
    let mut case = Case::new(4, true);
    for kind in [LossKind::WganGp, LossKind::LsganReversed] {
        let loss = LossConfig { kind, ..LossConfig::default() };
        check(&mut case, &loss, |c| c.d.params_mut(), Case::discriminator);
        check(&mut case, &loss, |c| c.g.params_mut(), Case::generator);
    }
}

/// Two halves of a tiny step go their own ways.
#[test]
fn a_generators_step_in_halves_is_that_of_the_whole() {
    let case = Case::new(16, true);
    let Case { g, d, latents, labels, .. } = &case;
    assert!(g.params().are_tiny_on(16, GROWTH), "no halves are made of this case");
    let (images, tape) = g.forward(latents, Some(labels), GROWTH).unwrap();
    let again = g.forward_only(latents, Some(labels), GROWTH).unwrap();
    assert!(largest(&(&again - &images).unwrap().abs().unwrap()) < 1e-12);

    let noise = case.noise_of_generated().unwrap();
    let (outputs, d_tape) = d.forward_with_noise(&images, GROWTH, 1, &noise).unwrap();
    let rows: Vec<Vec<f64>> = outputs.to_vec2().unwrap();
    let of_labels: Vec<Vec<f64>> = labels.to_vec2().unwrap();
    let loss = LossConfig { label_weight: 0.7, ..LossConfig::default() };
    let (mut whole, mut toward) = (0.0, Vec::new());
    for (row, label) in rows.iter().zip(&of_labels) {
        let all = row[1].exp() + row[2].exp();
        whole -= row[0] / 16.0;
        toward.push(-1.0 / 16.0);
        for class in 0..2 {
            let share = row[1 + class].exp() / all;
            whole -= loss.label_weight / 16.0 * label[class] * share.ln();
            let off = share * (label[0] + label[1]) - label[class];
            toward.push(loss.label_weight / 16.0 * off);
        }
    }
    let toward = Tensor::from_vec(toward, (16, 3), &Device::Cpu).unwrap();
    let expected = g.backward(tape, &d.image_grad(d_tape, &toward).unwrap()).unwrap();

    let (grads, value) = case.generator(&loss);
    assert!((value - whole).abs() < 1e-12, "{value} {whole}");
    let mut compared = 0;
    for (ours, expected) in grads.iter().zip(expected.iter()) {
        assert_eq!(ours.is_some(), expected.is_some());
        let Some((ours, expected)) = ours.zip(expected) else { continue };
        assert!(largest(&(ours - expected).unwrap().abs().unwrap()) < 1e-12);
        compared += 1;
    }
    assert!(compared > 10, "{compared}");
}

fn largest(x: &Tensor) -> f64 {
    x.flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

/// A target that some norms of the case exceed and some do not.
fn median_norm(case: &Case) -> f64 {
    let fake = case.g.forward_only(&case.latents, Some(&case.labels), GROWTH).unwrap();
    let batch = Batch {
        real: &case.real,
        fake: &fake,
        mixing: &case.mixing,
        labels: Some(&case.labels),
        noise: None,
    };
    discriminator_step(&case.d, batch, GROWTH, &LossConfig::default()).unwrap().1.norm
}

#[test]
fn one_side_costs_less_than_two() {
    let case = Case::new(4, false);
    let of = |one_sided| {
        let gradient_target = median_norm(&case);
        let loss = LossConfig { one_sided, gradient_target, drift: 0.0, ..LossConfig::default() };
        case.discriminator(&loss).1
    };
    let nothing = LossConfig { gradient_weight: 0.0, drift: 0.0, ..LossConfig::default() };
    let (one, two, none) = (of(true), of(false), case.discriminator(&nothing).1);
    assert!(none < one && one < two, "{none} {one} {two}");
}
