//! Reads the golden numbers, and draws the images that they were made of.

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Tensors of `metrics.safetensors`.
pub(crate) struct Tensors(Vec<u8>);

impl Tensors {
    pub(crate) fn read() -> Self {
        Self(std::fs::read(path("metrics.safetensors")).unwrap())
    }

    fn bytes(&self, name: &str, dtype: Dtype) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    pub(crate) fn u8(&self, name: &str) -> Vec<u8> {
        self.bytes(name, Dtype::U8).1
    }

    pub(crate) fn f32(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, bytes) = self.bytes(name, Dtype::F32);
        (shape, bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    pub(crate) fn f64(&self, name: &str) -> Vec<f64> {
        self.bytes(name, Dtype::F64)
            .1
            .as_chunks()
            .0
            .iter()
            .map(|b| f64::from_le_bytes(*b))
            .collect()
    }

    pub(crate) fn indices(&self, name: &str) -> Vec<usize> {
        self.bytes(name, Dtype::I32)
            .1
            .as_chunks()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b) as usize)
            .collect()
    }
}

/// `metrics.json`.
pub(crate) fn values() -> Value {
    serde_json::from_slice(&std::fs::read(path("metrics.json")).unwrap()).unwrap()
}

pub(crate) fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

/// RGB images `n` of a seed, u8 `[N, 3, size, size]`: two triangle waves and hashed noise, in integers alone.
pub(crate) fn images(seed: u64, n: std::ops::Range<u64>, size: u64, noise: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (n, c) in n.flat_map(|n| (0..3).map(move |c| (n, c))) {
        let h = splitmix(seed * 1_000_003 + n * 31 + c);
        let (fx, fy, phase) = (1 + (h & 7), 1 + ((h >> 3) & 7), (h >> 6) & 511);
        let (fx2, fy2, phase2) = (4 + ((h >> 16) & 31), 4 + ((h >> 21) & 31), (h >> 26) & 511);
        for (y, x) in (0..size * size).map(|p| (p / size, p % size)) {
            let a = triangle((x * fx + y * fy) * (128 / size) + phase);
            let b = triangle(x * fx2 + 65_536 + phase2 - y * fy2);
            let e = splitmix(h.wrapping_add(y * size + x)) >> 56;
            bytes.push((((8 - noise) * ((5 * a + 3 * b) / 8) + noise * e) / 8) as u8);
        }
    }
    bytes
}

pub(crate) fn splitmix(v: u64) -> u64 {
    let v = v.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let v = (v ^ (v >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let v = (v ^ (v >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    v ^ (v >> 31)
}

fn triangle(t: u64) -> u64 {
    (t % 512).abs_diff(256).min(255)
}

#[test]
fn images_are_those_the_numbers_were_made_of() {
    for check in values()["image_formula_check"].as_array().unwrap() {
        let field = |name: &str| check[name].as_u64().unwrap();
        let bytes = images(field("seed"), field("n0")..field("n1"), field("size"), field("noise"));
        assert_eq!(bytes.iter().map(|&b| u64::from(b)).sum::<u64>(), field("sum"), "{check}");
        let first: Vec<u64> = bytes[..8].iter().map(|&b| u64::from(b)).collect();
        let expected: Vec<u64> =
            check["first8"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
        assert_eq!(first, expected, "{check}");
    }
    let tensors = Tensors::read();
    assert_eq!(images(11, 0..16, 64, 1), tensors.u8("img_a"));
    assert_eq!(images(12, 0..16, 64, 3), tensors.u8("img_b"));
}
