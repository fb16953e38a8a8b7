//! What is exported for another implementation is imported as it was.

use pggan_model::export::{ExportError, zoo};
use pggan_model::weights::SnapshotHeader;
use pggan_model::{Growth, ModelConfig, import};

use crate::{networks, tiny};

fn header(model: ModelConfig, level: u32, alpha: f64) -> SnapshotHeader {
    SnapshotHeader { format: 1, model, level, alpha, images_shown: 0, dataset: String::new() }
}

#[test]
fn the_zoos_names_and_constants_are_the_inverse_of_the_import() {
    for (position_bias, fused_scale, level, alpha) in [
        (false, false, 4, 1.0),
        (true, false, 4, 0.25),
        (false, true, 3, 1.0),
        (false, false, 2, 1.0),
    ] {
        let model = ModelConfig { position_bias, fused_scale, ..tiny(16) };
        let (g, d) = networks(&model);
        let (bytes, notes) = zoo(&header(model, level, alpha), &g, &d, &g).unwrap();
        assert_eq!(notes.len(), 1 + usize::from(fused_scale));
        let back = import::read(&bytes).unwrap();
        assert_eq!(back.growth, Growth { level, alpha });
        assert_eq!(back.g.config().position_bias, position_bias);
        let pairs = [
            (back.g.params(), g.params()),
            (back.g_ema.params(), g.params()),
            (back.d.as_ref().unwrap().params(), d.params()),
        ];
        for (back, ours) in pairs {
            for param in back.iter() {
                let original = ours.iter().find(|p| p.name == param.name).unwrap();
                let numbers = |t: &candle_core::Tensor| {
                    t.to_dtype(candle_core::DType::F32)
                        .unwrap()
                        .flatten_all()
                        .unwrap()
                        .to_vec1::<f32>()
                        .unwrap()
                };
                for (a, b) in numbers(&param.value).iter().zip(numbers(&original.value)) {
                    assert!((a - b).abs() <= 3e-7 * b.abs(), "{}: {a} {b}", param.name);
                }
            }
        }
    }
}

#[test]
fn what_has_no_place_is_named() {
    let (g, d) = networks(&tiny(8));
    let refuse = |model: ModelConfig, words: &str| {
        let error = zoo(&header(model, 3, 1.0), &g, &d, &g).unwrap_err();
        assert!(matches!(error, ExportError::Unsupported { .. }));
        assert!(error.to_string().contains(words), "{error}");
    };
    refuse(
        ModelConfig { label_size: 2, ..tiny(8) },
        "pytorch_GAN_zoo has no place for model.label_size = 2",
    );
    refuse(ModelConfig { normalize_latents: false, ..tiny(8) }, "model.normalize_latents = false");
    refuse(ModelConfig { pixelnorm_epsilon: 1e-4, ..tiny(8) }, "model.pixelnorm_epsilon = 0.0001");
    refuse(ModelConfig { equalized: false, ..tiny(8) }, "model.equalized = false");
}
