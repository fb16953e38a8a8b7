//! Settings that have a name: whole configurations, and the official code's switches that take one thing away.

/// A name and the TOML document that it stands for.
pub type Named = (&'static str, &'static str);

/// The presets, the default first.
pub const PRESETS: [Named; 21] = [
    ("quick", include_str!("../presets/quick.toml")),
    ("small", include_str!("../presets/small.toml")),
    ("v1-1gpu", include_str!("../presets/v1-1gpu.toml")),
    ("v2-1gpu", include_str!("../presets/v2-1gpu.toml")),
    ("v2-2gpus", include_str!("../presets/v2-2gpus.toml")),
    ("v2-4gpus", include_str!("../presets/v2-4gpus.toml")),
    ("v2-8gpus", include_str!("../presets/v2-8gpus.toml")),
    ("celebahq", include_str!("../presets/celebahq.toml")),
    ("celebahq-lsgan", include_str!("../presets/celebahq-lsgan.toml")),
    ("lsun", include_str!("../presets/lsun.toml")),
    ("lsun-full", include_str!("../presets/lsun-full.toml")),
    ("cifar10", include_str!("../presets/cifar10.toml")),
    ("table1-a", include_str!("../presets/table1-a.toml")),
    ("table1-b", include_str!("../presets/table1-b.toml")),
    ("table1-c", include_str!("../presets/table1-c.toml")),
    ("table1-d", include_str!("../presets/table1-d.toml")),
    ("table1-e-star", include_str!("../presets/table1-e-star.toml")),
    ("table1-e", include_str!("../presets/table1-e.toml")),
    ("table1-f", include_str!("../presets/table1-f.toml")),
    ("table1-g", include_str!("../presets/table1-g.toml")),
    ("table1-h", include_str!("../presets/table1-h.toml")),
];

/// The ablations, each to be laid over any preset.
pub const ABLATIONS: [Named; 7] = [
    (
        "nogrowing",
        "schedule = { initial_resolution = 0, training_kimg = 0, transition_kimg = 0, total_kimg = 10000 }",
    ),
    ("nopixelnorm", "model.g_norm = 'none'"),
    ("nowscale", "model.equalized = false"),
    ("noleakyrelu", "model.g_activation = 'relu'"),
    ("nosmoothing", "optim.ema_beta = 0.0"),
    ("norepeat", "schedule.minibatch_repeats = 1"),
    ("noreset", "schedule.reset_optimizer = false"),
];

/// The one of a name; otherwise all names there are.
pub(crate) fn find(table: &[Named], name: &str) -> Result<&'static str, String> {
    match table.iter().find(|(n, _)| *n == name) {
        Some((_, text)) => Ok(text),
        None => Err(table.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", ")),
    }
}
