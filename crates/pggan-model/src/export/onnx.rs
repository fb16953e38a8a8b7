//! A generator as an ONNX model: opset 13, one input for latent vectors (and one for labels), any number of images.

use candle_core::{DType, Device, Tensor};
use prost::Message as _;

use super::proto::{
    Attribute, Constant, Dimension, Graph, Model, Node, OperatorSet, Shape, Size, TensorType, Type,
    Value, data_type, kind,
};
use super::{ExportError, require};
use crate::layout::GLayer;
use crate::{Activation, Generator, GeneratorNorm, Growth, OutputActivation};

const FORMAT: &str = "this ONNX export";

/// A generator at a growth. Inputs: `z` `[N, latent]`, and `labels` `[N, classes]` of a conditional one. Output: `images`
/// `[N, C, R, R]`, about [-1, 1]. The constants of the equalized learning rate are in the weights.
///
/// # Errors
/// [`ExportError::Unsupported`] for networks with batch norm.
pub fn onnx(g: &Generator, growth: Growth) -> Result<Vec<u8>, ExportError> {
    let config = g.config();
    require(FORMAT, &[("g_norm", &config.g_norm, config.g_norm != GeneratorNorm::BatchNorm)])?;
    let mut graph = Writer { g, graph: Graph::default(), values: 0 };
    let (latent, labels) = (config.latent_size(), config.label_size);
    let mut inputs = vec![value("z", &[latent])];

    // Latents and labels, normalized in the order that the network knows.
    let mut x = "z".to_owned();
    let before = labels == 0 || !config.normalize_labels;
    if config.normalize_latents && before {
        x = graph.pixel_norm(&x)?;
    }
    if labels > 0 {
        inputs.push(value("labels", &[labels]));
        x = graph.node("Concat", &[&x, "labels"], vec![int("axis", 1)]);
        if config.normalize_latents && !before {
            x = graph.pixel_norm(&x)?;
        }
    }

    // 4x4.
    let maps = config.fmaps(2);
    let weight = graph.weight(GLayer::Dense)?;
    x = graph.node("Gemm", &[&x, &weight], vec![int("transB", 1)]);
    let shape = graph.integers("shape4x4", &[-1, maps as i64, 4, 4]);
    x = graph.node("Reshape", &[&x, &shape], vec![]);
    let bias = graph.parameter(GLayer::Dense, "bias")?;
    let positions = if config.position_bias { 4 } else { 1 };
    let bias = bias.reshape((1, maps, positions, positions))?;
    let bias = graph.constant("level02.dense.bias", &bias)?;
    x = graph.node("Add", &[&x, &bias], vec![]);
    x = graph.activate(&x)?;
    x = graph.conv(GLayer::Conv1(2), &x)?;
    x = graph.activate(&x)?;

    // 8x8 and up; the last level may be fading in.
    let mut older = None;
    for level in 3..=growth.level {
        if level == growth.level && growth.fading() {
            let image = graph.conv(GLayer::ToRgb(level - 1), &x)?;
            older = Some(graph.double(&image)?);
        }
        x = graph.double(&x)?;
        for layer in [GLayer::Conv0(level), GLayer::Conv1(level)] {
            x = graph.conv(layer, &x)?;
            x = graph.activate(&x)?;
        }
    }
    let mut image = graph.conv(GLayer::ToRgb(growth.level), &x)?;
    if let Some(older) = older {
        let (old, new) =
            (graph.number("old", 1.0 - growth.alpha)?, graph.number("new", growth.alpha)?);
        let older = graph.node("Mul", &[&older, &old], vec![]);
        let newer = graph.node("Mul", &[&image, &new], vec![]);
        image = graph.node("Add", &[&older, &newer], vec![]);
    }
    let last = if config.g_output == OutputActivation::Tanh { "Tanh" } else { "Identity" };
    let node = Node {
        input: vec![image],
        output: vec!["images".to_owned()],
        name: "images".to_owned(),
        op_type: last.to_owned(),
        attribute: vec![],
    };
    graph.graph.node.push(node);

    let r = growth.resolution();
    let graph = Graph {
        name: "generator".to_owned(),
        input: inputs,
        output: vec![value("images", &[config.channels, r, r])],
        ..graph.graph
    };
    let model = Model {
        ir_version: 7,
        producer_name: "pggan-model".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: 13 }],
    };
    Ok(model.encode_to_vec())
}

/// A graph that grows node by node.
struct Writer<'a> {
    g: &'a Generator,
    graph: Graph,
    values: usize,
}

impl Writer<'_> {
    /// Adds a node; returns its output's name.
    fn node(&mut self, op: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        self.values += 1;
        let output = format!("{}{}", op.to_lowercase(), self.values);
        self.graph.node.push(Node {
            input: inputs.iter().map(|&name| name.to_owned()).collect(),
            output: vec![output.clone()],
            name: output.clone(),
            op_type: op.to_owned(),
            attribute,
        });
        output
    }

    fn constant(&mut self, name: &str, value: &Tensor) -> Result<String, ExportError> {
        let numbers = value.flatten_all()?.to_vec1::<f32>()?;
        self.graph.initializer.push(Constant {
            dims: value.dims().iter().map(|&n| n as i64).collect(),
            data_type: data_type::FLOAT,
            name: name.to_owned(),
            raw_data: numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
        Ok(name.to_owned())
    }

    /// A constant that several nodes may use.
    fn shared(&mut self, name: &str, value: &Tensor) -> Result<String, ExportError> {
        if self.graph.initializer.iter().any(|constant| constant.name == name) {
            return Ok(name.to_owned());
        }
        self.constant(name, value)
    }

    fn number(&mut self, name: &str, value: f64) -> Result<String, ExportError> {
        self.shared(name, &Tensor::new(value as f32, &Device::Cpu)?)
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.graph.initializer.push(Constant {
            dims: vec![values.len() as i64],
            data_type: data_type::INT64,
            name: name.to_owned(),
            raw_data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        });
        name.to_owned()
    }

    fn parameter(&self, layer: GLayer, kind: &str) -> Result<Tensor, ExportError> {
        let value = self.g.params().named(&format!("{}.{kind}", layer.name()))?;
        Ok(value.to_device(&Device::Cpu)?.to_dtype(DType::F32)?)
    }

    /// The weight as it is applied.
    fn weight(&mut self, layer: GLayer) -> Result<String, ExportError> {
        let mut weight = self.parameter(layer, "weight")?;
        if self.g.config().equalized {
            let fan_in: usize = weight.dims().iter().skip(1).product();
            weight = (weight * (layer.gain() / (fan_in as f64).sqrt()))?;
        }
        self.constant(&format!("{}.weight", layer.name()), &weight)
    }

    fn conv(&mut self, layer: GLayer, x: &str) -> Result<String, ExportError> {
        let weight = self.weight(layer)?;
        let bias = self.parameter(layer, "bias")?;
        let bias = self.constant(&format!("{}.bias", layer.name()), &bias)?;
        let size = if matches!(layer, GLayer::ToRgb(_)) { 1 } else { 3 };
        let attributes =
            vec![ints("kernel_shape", &[size, size]), ints("pads", &[(size - 1) / 2; 4])];
        Ok(self.node("Conv", &[x, &weight, &bias], attributes))
    }

    /// What follows a hidden layer.
    fn activate(&mut self, x: &str) -> Result<String, ExportError> {
        let x = match self.g.config().g_activation {
            Activation::LeakyRelu => self.node("LeakyRelu", &[x], vec![float("alpha", 0.2)]),
            Activation::Relu => self.node("Relu", &[x], vec![]),
        };
        match self.g.config().g_norm {
            GeneratorNorm::PixelNorm => self.pixel_norm(&x),
            _ => Ok(x),
        }
    }

    fn pixel_norm(&mut self, x: &str) -> Result<String, ExportError> {
        let epsilon = self.number("epsilon", self.g.config().pixelnorm_epsilon)?;
        let square = self.node("Mul", &[x, x], vec![]);
        let mean =
            self.node("ReduceMean", &[&square], vec![ints("axes", &[1]), int("keepdims", 1)]);
        let sum = self.node("Add", &[&mean, &epsilon], vec![]);
        let root = self.node("Sqrt", &[&sum], vec![]);
        Ok(self.node("Div", &[x, &root], vec![]))
    }

    /// Nearest neighbours at twice the resolution.
    fn double(&mut self, x: &str) -> Result<String, ExportError> {
        let scales = self.shared("double", &Tensor::new(&[1f32, 1., 2., 2.], &Device::Cpu)?)?;
        let attributes = vec![
            string("mode", "nearest"),
            string("coordinate_transformation_mode", "asymmetric"),
            string("nearest_mode", "floor"),
        ];
        Ok(self.node("Resize", &[x, "", &scales], attributes))
    }
}

fn attribute(name: &str, kind: i32) -> Attribute {
    Attribute { name: name.to_owned(), kind, ..Attribute::default() }
}

fn float(name: &str, f: f32) -> Attribute {
    Attribute { f, ..attribute(name, kind::FLOAT) }
}

fn int(name: &str, i: i64) -> Attribute {
    Attribute { i, ..attribute(name, kind::INT) }
}

fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute { ints: ints.to_vec(), ..attribute(name, kind::INTS) }
}

fn string(name: &str, s: &str) -> Attribute {
    Attribute { s: s.as_bytes().to_vec(), ..attribute(name, kind::STRING) }
}

/// An input or output: N of some shape.
fn value(name: &str, shape: &[usize]) -> Value {
    let sizes = shape.iter().map(|&n| Size::Value(n as i64));
    let sizes = std::iter::once(Size::Name("N".to_owned())).chain(sizes);
    let dim = sizes.map(|size| Dimension { size: Some(size) }).collect();
    let tensor = TensorType { elem_type: data_type::FLOAT, shape: Some(Shape { dim }) };
    Value { name: name.to_owned(), kind: Some(Type { tensor: Some(tensor) }) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ModelConfig;

    /// The few operators, as the ONNX documents define them, on candle's plain operations.
    fn run(model: &[u8], inputs: &[(&str, &Tensor)]) -> Tensor {
        let graph = Model::decode(model).unwrap().graph.unwrap();
        let mut values: BTreeMap<String, Tensor> =
            inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).clone())).collect();
        let mut integers = BTreeMap::new();
        for Constant { dims, data_type, name, raw_data } in &graph.initializer {
            if *data_type == data_type::INT64 {
                let (chunks, _) = raw_data.as_chunks::<8>();
                let numbers: Vec<i64> = chunks.iter().map(|b| i64::from_le_bytes(*b)).collect();
                integers.insert(name.clone(), numbers);
                continue;
            }
            let (chunks, _) = raw_data.as_chunks::<4>();
            let numbers: Vec<f32> = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
            let shape: Vec<usize> = dims.iter().map(|&n| n as usize).collect();
            values.insert(name.clone(), Tensor::from_vec(numbers, shape, &Device::Cpu).unwrap());
        }
        for node in &graph.node {
            let x = &values[&node.input[0]];
            let y = || &values[&node.input[1]];
            let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name).unwrap();
            let result = match &*node.op_type {
                "Identity" => x.clone(),
                "Mul" => x.broadcast_mul(y()).unwrap(),
                "Add" => x.broadcast_add(y()).unwrap(),
                "Div" => x.broadcast_div(y()).unwrap(),
                "Sqrt" => x.sqrt().unwrap(),
                "Tanh" => x.tanh().unwrap(),
                "Relu" => x.relu().unwrap(),
                "LeakyRelu" => x.maximum(&(x * f64::from(attribute("alpha").f)).unwrap()).unwrap(),
                "Concat" => Tensor::cat(&[x, y()], attribute("axis").i as usize).unwrap(),
                "ReduceMean" => x.mean_keepdim(attribute("axes").ints[0] as usize).unwrap(),
                "Gemm" => x.matmul(&y().t().unwrap()).unwrap(),
                "Reshape" => {
                    let shape = &integers[&node.input[1]];
                    let shape: Vec<usize> = shape[1..].iter().map(|&n| n as usize).collect();
                    x.reshape(((), shape[0], shape[1], shape[2])).unwrap()
                }
                "Conv" => {
                    let pad = attribute("pads").ints[0] as usize;
                    let bias = values[&node.input[2]].reshape((1, (), 1, 1)).unwrap();
                    x.conv2d(y(), pad, 1, 1, 1).unwrap().broadcast_add(&bias).unwrap()
                }
                "Resize" => {
                    let (_, _, h, w) = x.dims4().unwrap();
                    x.upsample_nearest2d(2 * h, 2 * w).unwrap()
                }
                other => panic!("{other}"),
            };
            values.insert(node.output[0].clone(), result);
        }
        values["images"].clone()
    }

    #[test]
    fn the_graph_makes_the_generators_images() {
        let mut seed = 7u32;
        let mut draw = move |_: &str, values: &mut [f32]| {
            for v in values {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *v = (seed >> 8) as f32 / (1 << 23) as f32 - 1.0;
            }
        };
        let plain = ModelConfig {
            resolution: 16,
            fmap_base: 64,
            fmap_max: 8,
            latent_size: 6,
            ..ModelConfig::default()
        };
        for config in [
            plain.clone(),
            ModelConfig { label_size: 3, channels: 1, ..plain.clone() },
            ModelConfig { position_bias: true, normalize_latents: false, ..plain.clone() },
            ModelConfig {
                label_size: 2,
                normalize_labels: false,
                equalized: false,
                g_activation: Activation::Relu,
                g_norm: GeneratorNorm::None,
                g_output: OutputActivation::Tanh,
                ..plain
            },
        ] {
            let g = Generator::new(&config, DType::F32, &Device::Cpu, &mut draw).unwrap();
            let mut tensor = |n: usize, m: usize| {
                let mut values = vec![0.0; n * m];
                draw("", &mut values);
                Tensor::from_vec(values, (n, m), &Device::Cpu).unwrap()
            };
            let z = tensor(3, 6);
            let labels = (config.label_size > 0).then(|| tensor(3, config.label_size));
            let mut inputs = vec![("z", &z)];
            inputs.extend(labels.as_ref().map(|labels| ("labels", labels)));
            for growth in [Growth::full(2), Growth { level: 4, alpha: 0.25 }, Growth::full(4)] {
                let images = g.generate(&z, labels.as_ref(), growth).unwrap();
                let theirs = run(&onnx(&g, growth).unwrap(), &inputs);
                let off = (&images - &theirs).unwrap().abs().unwrap().max_all().unwrap();
                let off = off.to_scalar::<f32>().unwrap();
                assert!(off < 1e-5, "{growth:?}: {off:e}");
            }
        }
    }
}
