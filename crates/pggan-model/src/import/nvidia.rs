//! NVIDIA's pickles: a tuple of G, D and the average of G, as the official code saves them.
//!
//! TensorFlow's networks name their variables; weights are raw, as ours, with the axes in another order, and an upscaling
//! convolution that is fused has its kernels turned by half a turn. Theano's, of the paper itself, are a list in
//! a known order; each layer has a weight, the scale that it had when it was drawn, and a bias, and kernels are turned since
//! Theano's convolution turns them. The source code that such a pickle brings along is not looked at.

use std::collections::BTreeMap;

use candle_core::Tensor;

use super::array::View;
use super::numpy;
use super::pickle::{self, Id, LATIN1, Pickle};
use super::{Foreign, ImportError, Result, Summary, Weights, Which, turned};
use crate::layout::{DLayer, GLayer};
use crate::{Activation, GeneratorNorm, Growth, ModelConfig};

/// Names that stand for data: the classes of networks are kept as what they hold.
fn allowed(module: &str, name: &str) -> bool {
    match (module, name) {
        ("tfutil" | "network" | "dnnlib.tflib.network", "Network")
        | ("config", "EasyDict")
        | ("collections", "OrderedDict")
        | ("copy_reg" | "copyreg", "_reconstructor")
        | ("__builtin__" | "builtins", "object") => true,
        _ => (module, name) == LATIN1 || numpy::allowed(module, name),
    }
}

pub(super) struct Networks {
    g: Network,
    d: Network,
    average: Network,
}

/// The settings and the layers of one network.
struct Network {
    /// Of Theano: its kernels have another layout.
    theano: bool,
    settings: Settings,
    layers: BTreeMap<String, Layer>,
    lod: f64,
}

/// A layer's variables.
struct Layer {
    weight: View,
    bias: View,
    /// Theano's scale of the weight.
    scale: Option<f64>,
}

/// What a network was made with; what is not said has the official code's default.
struct Settings(BTreeMap<String, Setting>);

#[derive(PartialEq)]
enum Setting {
    None,
    Number(f64),
    Other,
}

impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Number(number) => number.fmt(f),
            Self::Other => f.write_str("something else than a number"),
        }
    }
}

impl Settings {
    fn read(pickle: &Pickle, id: Id) -> Self {
        let entries = pickle.entries(id).unwrap_or_default();
        let setting = |id: Id| match (pickle.numeric(id), pickle.get(id)) {
            (Some(number), _) => Setting::Number(number),
            (None, pickle::Value::None) => Setting::None,
            _ => Setting::Other,
        };
        let pairs =
            entries.iter().filter_map(|&(k, v)| Some((pickle.str(k)?.to_owned(), setting(v))));
        Self(pairs.collect())
    }

    fn number(&self, key: &str) -> Option<f64> {
        match self.0.get(key) {
            Some(Setting::Number(number)) => Some(*number),
            _ => None,
        }
    }

    fn count(&self, key: &str, usual: usize) -> usize {
        self.number(key).map_or(usual, |number| number as usize)
    }

    /// A switch that is on unless it is said to be off.
    fn on(&self, key: &str) -> bool {
        self.number(key) != Some(0.0)
    }

    /// Ends the import if a setting is given and is not what ours can be.
    fn require(&self, key: &str, needed: &Setting) -> Result<()> {
        match self.0.get(key) {
            Some(found) if found != needed => {
                Err(ImportError::Unsupported(format!("a network with {key} = {found}")))
            }
            _ => Ok(()),
        }
    }
}

impl Networks {
    pub(super) fn read(bytes: &[u8]) -> Result<Self> {
        let (pickle, _) = pickle::read(bytes, &allowed)?;
        let &[g, d, average] = pickle.items(pickle.root()) else {
            let reason = "it is a pickle, but of something else than NVIDIA's three networks";
            return Err(ImportError::Format(reason.to_owned()));
        };
        let network = |id: Id, kind: &str| Network::read(&pickle, id, kind);
        Ok(Self { g: network(g, "G")?, d: network(d, "D")?, average: network(average, "G")? })
    }

    fn fused(network: &Network, layer: &str) -> bool {
        network.layers.contains_key(&format!("8x8/{layer}"))
    }
}

impl Network {
    fn read(pickle: &Pickle, id: Id, kind: &str) -> Result<Self> {
        let entry = |key: &str| pickle.entry(id, key);
        if let Some(variables) = entry("variables") {
            let settings = entry("static_kwargs").map(|id| Settings::read(pickle, id));
            let settings = settings.unwrap_or(Settings(BTreeMap::new()));
            Self::of_tensorflow(pickle, variables, settings)
        } else if let (Some(spec), Some(values)) = (entry("build_func_spec"), entry("param_values"))
        {
            let function =
                pickle.entry(spec, "func").and_then(|id| pickle.str(id)).unwrap_or_default();
            if ![format!("{kind}_paper"), format!("{kind}_progressive_8")]
                .contains(&function.to_owned())
            {
                return Err(ImportError::Unsupported(format!("Theano's network {function:?}")));
            }
            let lod = entry("toplevel_params").and_then(|id| pickle.entry(id, "cur_lod"));
            let lod = lod.and_then(|id| pickle.numeric(id)).unwrap_or(0.0);
            Self::of_theano(pickle, kind, values, Settings::read(pickle, spec), lod)
        } else {
            Err(ImportError::Missing(format!("network {kind} with variables in it")))
        }
    }

    fn of_tensorflow(pickle: &Pickle, variables: Id, settings: Settings) -> Result<Self> {
        let mut arrays = BTreeMap::new();
        for &pair in pickle.items(variables) {
            if let &[name, value] = pickle.items(pair)
                && let Some(name) = pickle.str(name)
                && let Some(array) = pickle.array(value)?
            {
                arrays.insert(name.to_owned(), array);
            }
        }
        let lod = arrays.get("lod").and_then(View::number).unwrap_or(0.0);
        let mut layers = BTreeMap::new();
        for (name, weight) in &arrays {
            if let Some(layer) = name.strip_suffix("/weight")
                && let Some(bias) = arrays.get(&format!("{layer}/bias"))
            {
                let (weight, bias) = (weight.clone(), bias.clone());
                layers.insert(layer.to_owned(), Layer { weight, bias, scale: None });
            }
        }
        Ok(Self { theano: false, settings, layers, lod })
    }

    fn of_theano(
        pickle: &Pickle,
        kind: &str,
        values: Id,
        mut settings: Settings,
        lod: f64,
    ) -> Result<Self> {
        for key in ["label_size", "use_batchnorm", "use_layernorm"] {
            settings.require(key, &Setting::Number(0.0))?;
        }
        for key in ["tanh_at_end", "mbdisc_kernels"] {
            settings.require(key, &Setting::None)?;
        }
        // Its minibatch stddev is over the whole minibatch, of 16 in the paper.
        settings.0.insert("mbstd_group_size".to_owned(), Setting::Number(16.0));
        settings.0.insert("fused_scale".to_owned(), Setting::Number(0.0));
        settings.0.entry("resolution".to_owned()).or_insert(Setting::Number(32.0));
        let resolution = settings.count("resolution", 32);
        let max = resolution.checked_ilog2().filter(|max| (2..=10).contains(max)).unwrap_or(2);

        let mut rest = pickle.items(values).iter();
        let mut next = || {
            let id =
                rest.next().ok_or_else(|| ImportError::Missing("further parameters".to_owned()))?;
            let array = pickle.array(*id)?;
            array.ok_or_else(|| ImportError::Format("a parameter that is no array".to_owned()))
        };
        let mut layers = BTreeMap::new();
        let names: Vec<String> = if kind == "G" {
            let blocks = GLayer::all(max).filter(|layer| !matches!(layer, GLayer::ToRgb(_)));
            let colours = (2..=max).rev().map(GLayer::ToRgb);
            blocks.chain(colours).map(|layer| g_name(layer, max, false)).collect()
        } else {
            let levels = (3..=max).rev().flat_map(|level| {
                [DLayer::Conv0(level), DLayer::Conv1(level), DLayer::FromRgb(level - 1)]
            });
            let ends = [DLayer::Conv, DLayer::Dense0, DLayer::Dense1];
            let all = std::iter::once(DLayer::FromRgb(max)).chain(levels).chain(ends);
            all.map(|layer| d_name(layer, max, false)).collect()
        };
        for name in names {
            let weight = next()?;
            let scale = if settings.on("use_wscale") {
                Some(next()?.number().ok_or_else(|| {
                    ImportError::Format(format!("{name} has an array for its scale"))
                })?)
            } else {
                None
            };
            layers.insert(name, Layer { weight, scale, bias: next()? });
        }
        Ok(Self { theano: true, settings, layers, lod })
    }

    /// A layer, its weight as `arrange` makes it of theirs; `gain` is that of our equalized learning rate.
    fn layer(
        &self,
        name: &str,
        gain: f64,
        tensorflow: impl Fn(Tensor) -> candle_core::Result<Tensor>,
        theano: impl Fn(Tensor) -> candle_core::Result<Tensor>,
    ) -> Result<Weights> {
        let layer = self.layers.get(name).ok_or_else(|| ImportError::Missing(name.to_owned()))?;
        let (weight, bias) = (layer.weight.tensor()?, layer.bias.tensor()?);
        let shape = layer.weight.shape();
        let misshapen = |_| {
            ImportError::Format(format!("{name}/weight is {shape:?}, which is no such layer's"))
        };
        let arranged = if self.theano { theano(weight) } else { tensorflow(weight) };
        let mut weight = arranged.map_err(misshapen)?;
        if let Some(scale) = layer.scale {
            let fan_in: usize = weight.dims().iter().skip(1).product();
            weight = (weight * (scale * (fan_in as f64).sqrt() / gain))?;
        }
        Ok((weight, bias.flatten_all()?))
    }
}

impl Foreign for Networks {
    fn summary(&self) -> Result<Summary> {
        let Network { settings, layers, lod, .. } = &self.average;
        let usual = ModelConfig::default();
        let activation = |settings: &Settings| {
            if settings.on("use_leakyrelu") { Activation::LeakyRelu } else { Activation::Relu }
        };
        let resolution = settings.count("resolution", 0);
        let channels = layers.get("ToRGB_lod0").and_then(|l| l.bias.shape().first().copied());
        let config = ModelConfig {
            resolution,
            channels: channels.ok_or_else(|| ImportError::Missing("ToRGB_lod0".to_owned()))?,
            fmap_base: settings.count("fmap_base", usual.fmap_base),
            fmap_decay: settings.number("fmap_decay").unwrap_or(usual.fmap_decay),
            fmap_max: settings.count("fmap_max", usual.fmap_max),
            latent_size: settings.count("latent_size", 0),
            label_size: settings.count("label_size", 0),
            mbstd_group: self.d.settings.count("mbstd_group_size", usual.mbstd_group),
            fused_scale: Self::fused(&self.d, "Conv1_down"),
            normalize_latents: settings.on("normalize_latents"),
            equalized: settings.on("use_wscale"),
            g_norm: if settings.on("use_pixelnorm") { usual.g_norm } else { GeneratorNorm::None },
            g_activation: activation(settings),
            d_activation: activation(&self.d.settings),
            pixelnorm_epsilon: settings
                .number("pixelnorm_epsilon")
                .unwrap_or(usual.pixelnorm_epsilon),
            ..usual
        };
        config.validate()?;
        let max = config.max_level();
        let lod = lod.clamp(0.0, f64::from(max - 2));
        let growth = Growth { level: max - lod.floor() as u32, alpha: 1.0 - (lod - lod.floor()) };
        Ok(Summary { config, growth, average: true, discriminator: true, notes: Vec::new() })
    }

    fn g(&self, which: Which, layer: GLayer) -> Result<Weights> {
        let network = if which == Which::Average { &self.average } else { &self.g };
        let fused = Self::fused(network, "Conv0_up");
        let max = network.settings.count("resolution", 4).max(4).ilog2();
        let name = g_name(layer, max, fused);
        network.layer(
            &name,
            layer.gain(),
            |weight| match layer {
                GLayer::Dense => weight.t(),
                GLayer::Conv0(_) if fused => turned(&weight.permute((2, 3, 0, 1))?),
                _ => weight.permute((3, 2, 0, 1)),
            },
            |weight| match layer {
                GLayer::Dense => {
                    let (maps, inputs, h, w) = weight.dims4()?;
                    weight.permute((0, 2, 3, 1))?.contiguous()?.reshape((maps * h * w, inputs))
                }
                GLayer::ToRgb(_) => weight.t()?.unsqueeze(2)?.unsqueeze(3),
                _ => turned(&weight),
            },
        )
    }

    fn d(&self, layer: DLayer) -> Result<Weights> {
        let fused = Self::fused(&self.d, "Conv1_down");
        let max = self.d.settings.count("resolution", 4).max(4).ilog2();
        self.d.layer(
            &d_name(layer, max, fused),
            layer.gain(),
            |weight| match layer {
                DLayer::Dense0 | DLayer::Dense1 => weight.t(),
                _ => weight.permute((3, 2, 0, 1)),
            },
            |weight| match layer {
                DLayer::FromRgb(_) => weight.t()?.unsqueeze(2)?.unsqueeze(3),
                DLayer::Dense0 => turned(&weight)?.flatten_from(1),
                DLayer::Dense1 => weight.t(),
                _ => turned(&weight),
            },
        )
    }
}

/// The official name of a layer of a generator that grows to 2^`max`.
fn g_name(layer: GLayer, max: u32, fused: bool) -> String {
    let scope = |level: u32, layer: &str| format!("{r}x{r}/{layer}", r = 1u32 << level);
    match layer {
        GLayer::Dense => scope(2, "Dense"),
        GLayer::Conv0(level) => scope(level, if fused { "Conv0_up" } else { "Conv0" }),
        GLayer::Conv1(2) => scope(2, "Conv"),
        GLayer::Conv1(level) => scope(level, "Conv1"),
        GLayer::ToRgb(level) => format!("ToRGB_lod{}", max.saturating_sub(level)),
    }
}

/// As [`g_name`], of a discriminator.
fn d_name(layer: DLayer, max: u32, fused: bool) -> String {
    let scope = |level: u32, layer: &str| format!("{r}x{r}/{layer}", r = 1u32 << level);
    match layer {
        DLayer::FromRgb(level) => format!("FromRGB_lod{}", max.saturating_sub(level)),
        DLayer::Conv0(level) => scope(level, "Conv0"),
        DLayer::Conv1(level) => scope(level, if fused { "Conv1_down" } else { "Conv1" }),
        DLayer::Conv => scope(2, "Conv"),
        DLayer::Dense0 => scope(2, "Dense0"),
        DLayer::Dense1 => scope(2, "Dense1"),
    }
}
