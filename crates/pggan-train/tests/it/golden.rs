//! A network of 16x16 pixels: every output, every gradient, three steps of training.
//!
//! The numbers were made in `f64`. Ours in `f64` (the generic path) agree to 1e-14; ours in `f32` (the engine's kernels) to
//! what `f32` and large Winograd tiles allow.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use pggan_model::{Discriminator, Generator, Grads, Growth, ModelConfig, Params};
use pggan_train::optim::{Average, EpsilonForm, OptimConfig, Optimizer};
use pggan_train::step::{LossConfig, discriminator_step, generator_step};

type Tensors = BTreeMap<String, Tensor>;

fn read(name: &str) -> Tensors {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let path = folder.join(format!("{name}.safetensors"));
    candle_core::safetensors::load(path, &Device::Cpu).unwrap().into_iter().collect()
}

fn config(fused_scale: bool) -> ModelConfig {
    ModelConfig {
        resolution: 16,
        fmap_base: 64,
        fmap_max: 16,
        fused_scale,
        ..ModelConfig::default()
    }
}

/// The official name of one of our parameters, in networks that grow to 16x16.
fn official(network: &str, ours: &str) -> String {
    let (level, rest) = ours.strip_prefix("level").unwrap().split_once('.').unwrap();
    let level: u32 = level.parse().unwrap();
    let (layer, kind) = rest.split_once('.').unwrap();
    let (r, lod) = (1 << level, 4 - level);
    let scope = match (network, layer) {
        (_, "to_rgb") => format!("ToRGB_lod{lod}"),
        (_, "from_rgb") => format!("FromRGB_lod{lod}"),
        (_, "dense") => "4x4/Dense".to_owned(),
        (_, "dense0") => "4x4/Dense0".to_owned(),
        (_, "dense1") => "4x4/Dense1".to_owned(),
        ("D", "conv") => "4x4/Conv".to_owned(),
        ("G", "conv1") if level == 2 => "4x4/Conv".to_owned(),
        ("G", "conv0") => format!("{r}x{r}/Conv0_up"),
        ("D", "conv1") => format!("{r}x{r}/Conv1_down"),
        (_, "conv0") => format!("{r}x{r}/Conv0"),
        _ => format!("{r}x{r}/Conv1"),
    };
    format!("{network}/{scope}/{kind}")
}

fn networks(fused_scale: bool, dtype: DType) -> (Generator, Discriminator) {
    let values = read("net16_params");
    let config = config(fused_scale);
    let nothing = &mut |_: &str, _: &mut [f32]| ();
    let mut g = Generator::new(&config, dtype, &Device::Cpu, nothing).unwrap();
    let mut d = Discriminator::new(&config, dtype, &Device::Cpu, nothing).unwrap();
    for (network, params) in [("G", g.params_mut()), ("D", d.params_mut())] {
        params
            .update(|_, name, value| {
                // A copy: updates are in place.
                *value = values[&official(network, name)].to_dtype(dtype)?.copy()?;
                Ok(())
            })
            .unwrap();
    }
    (g, d)
}

/// The largest difference, by the size of the largest number that is expected.
fn error(ours: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(ours.dims(), expected.dims());
    let (a, b) = (ours.to_dtype(DType::F64).unwrap(), expected.to_dtype(DType::F64).unwrap());
    let largest = |t: Tensor| t.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
    let largest = |t: Tensor| largest(t).to_scalar::<f64>().unwrap();
    largest((a - &b).unwrap()) / largest(b)
}

fn check(what: &str, ours: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = error(ours, expected);
    assert!(error < tolerance, "{what}: relative error {error:e}");
}

fn channels_last(images: &Tensor, dtype: DType) -> Tensor {
    let images = images.to_dtype(dtype).unwrap();
    images.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap()
}

fn scalar(t: &Tensor) -> f64 {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap()[0]
}

#[test]
fn forward() {
    let golden = read("net16_forward");
    let mut compared = 0;
    for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 3e-5)] {
        for (key, expected) in golden.iter().filter(|(key, _)| key.ends_with("/f64")) {
            let parts: Vec<&str> = key.split('/').collect();
            let [network, r, alpha, _] = parts[..] else { panic!("{key}") };
            let level = r.parse::<u32>().unwrap().ilog2();
            let alpha = alpha.strip_prefix("alpha").unwrap().parse().unwrap();
            let growth = Growth { level, alpha };
            let (g, d) = networks(network != "D_unfused", dtype);
            let ours = if network == "G" {
                let z = golden["z"].to_dtype(dtype).unwrap();
                g.generate(&z, None, growth).unwrap()
            } else {
                let images = channels_last(&golden[&format!("images/{r}")], dtype);
                d.forward(&images, growth, 1).unwrap().0
            };
            check(key, &ours, expected, tolerance);
            compared += 1;
        }
    }
    assert_eq!(compared, 24);
}

fn check_grads(network: &str, params: &Params, grads: &Grads, golden: &Tensors, tolerance: f64) {
    for (param, ours) in params.iter().zip(grads.iter()) {
        let name = official(network, &param.name);
        let (network, rest) = name.split_once('/').unwrap();
        let expected = golden.get(&format!("{network}/grad/{rest}/f64"));
        assert_eq!(ours.is_some(), expected.is_some(), "{name}");
        let (Some(ours), Some(expected)) = (ours, expected) else { continue };
        if name == "D/4x4/Dense1/bias" {
            // Real and fake scores cancel here: only the absolute error says something.
            let off = (scalar(ours) - scalar(expected)).abs();
            assert!(off < tolerance, "{name}: {off:e}");
        } else {
            check(&name, ours, expected, tolerance);
        }
    }
}

#[test]
fn wgan_gp_gradients() {
    for (file, fused, alpha) in
        [("net16_wgangp_fade", true, 0.4), ("net16_wgangp_stab_unfused", false, 1.0)]
    {
        let golden = read(file);
        let growth = Growth { level: 4, alpha };
        for (dtype, tolerance) in [(DType::F64, 1e-10), (DType::F32, 5e-5)] {
            let (g, d) = networks(fused, dtype);
            let latents = |key: &str| golden[key].to_dtype(dtype).unwrap();
            let real = channels_last(&golden["real"], dtype);
            let fake = g.forward_only(&latents("z_d"), None, growth).unwrap();
            check("fake", &fake, &channels_last(&golden["D/fake/f64"], DType::F64), tolerance);
            let mixing = golden["mix"].to_dtype(dtype).unwrap();
            let loss = LossConfig::default();
            let (grads, report) =
                discriminator_step(&d, &real, &fake, &mixing, growth, &loss).unwrap();
            let expected = scalar(&golden["D/loss/f64"]);
            assert!((report.loss - expected).abs() < tolerance * expected.abs(), "{report:?}");
            let norms = golden["D/mixed_norms/f64"].mean_all().unwrap();
            assert!((report.norm - scalar(&norms)).abs() < tolerance, "{report:?}");
            check_grads("D", d.params(), &grads, &golden, tolerance);

            let (grads, loss) = generator_step(&g, &d, &latents("z_g"), growth).unwrap();
            let expected = scalar(&golden["G/loss/f64"]);
            assert!((loss - expected).abs() < tolerance * expected.abs().max(1.0));
            // In this step of the unfused network an activation lies so near leaky ReLU's kink that nudging the
            // latents by 5e-6 moves these gradients by 6e-3, in f64 as well: f32 cannot say on which side it is.
            let tolerance = if !fused && dtype == DType::F32 { 1e-2 } else { tolerance };
            check_grads("G", g.params(), &grads, &golden, tolerance);
        }
    }
}

/// Discriminator, generator, average, three times over: both forms of Adam.
#[test]
fn three_steps() {
    let golden = read("net16_steps_wgangp");
    let growth = Growth { level: 4, alpha: 0.4 };
    for (form, after) in [(EpsilonForm::Paper, "after3"), (EpsilonForm::Official, "after3_tfadam")]
    {
        let config = OptimConfig { epsilon_form: form, ..OptimConfig::default() };
        let (mut g, mut d) = networks(true, DType::F64);
        let mut g_ema = g.duplicate().unwrap();
        let mut g_optim = Optimizer::new(&config, g.params()).unwrap();
        let mut d_optim = Optimizer::new(&config, d.params()).unwrap();
        for i in 0..3 {
            let input = |key: &str| golden[&format!("{key}{i}")].to_dtype(DType::F64).unwrap();
            let real = channels_last(&input("real"), DType::F64);
            let fake = g.forward_only(&input("z_d"), None, growth).unwrap();
            let loss = LossConfig::default();
            let step = discriminator_step(&d, &real, &fake, &input("mix"), growth, &loss).unwrap();
            d_optim.step(d.params_mut(), &step.0, 0.001).unwrap();
            let (grads, _) = generator_step(&g, &d, &input("z_g"), growth).unwrap();
            let average = Average { params: g_ema.params_mut(), beta: 0.999, level: 4 };
            g_optim.step_and_average(g.params_mut(), &grads, 0.001, average).unwrap();
        }
        // The file's average moves after each step of the generator, the official one before it: one move is missing.
        g_ema
            .params_mut()
            .update_beside(g.params_mut(), |_, p, g| {
                pggan_ops::adam::average(&mut p.value, g, 0.999)
            })
            .unwrap();
        for (network, part, params) in
            [("G", "G", g.params()), ("D", "D", d.params()), ("G", "Gs", g_ema.params())]
        {
            for param in params.iter() {
                let name = official(network, &param.name);
                let key = format!("{after}/{part}/{}", name.split_once('/').unwrap().1);
                // The file has the average for one form of Adam only.
                if let Some(expected) = golden.get(&key) {
                    check(&key, &param.value, expected, 1e-9);
                }
            }
        }
    }
}
