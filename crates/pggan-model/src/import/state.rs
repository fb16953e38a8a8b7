//! A file of weights as names and what they stand for: what is in dictionaries in dictionaries has a dotted path.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Tensor;
use safetensors::tensor::{Dtype, SafeTensors};

use super::ImportError;
use super::array::{Kind, View};

/// Headers of safetensors longer than this are hostile.
const MAX_HEADER: u64 = 4 << 20;

/// Tensors and settings by their paths.
#[derive(Debug, Default)]
pub(super) struct State {
    tensors: BTreeMap<String, View>,
    numbers: BTreeMap<String, f64>,
}

impl State {
    pub(super) fn insert(&mut self, path: &str, view: View) {
        // Wrappers of layers, and of networks spread over devices, add a name of their own.
        self.tensors.insert(path.replace("module.", ""), view);
    }

    pub(super) fn insert_number(&mut self, path: String, number: f64) {
        self.numbers.insert(path, number);
    }

    /// A setting, or a tensor of one number.
    pub(super) fn number(&self, path: &str) -> Option<f64> {
        self.numbers.get(path).copied().or_else(|| self.tensors.get(path)?.number())
    }

    pub(super) fn has(&self, path: &str) -> bool {
        self.tensors.contains_key(path)
    }

    pub(super) fn view(&self, path: &str) -> Result<&View, ImportError> {
        self.tensors.get(path).ok_or_else(|| ImportError::Missing(path.to_owned()))
    }

    pub(super) fn tensor(&self, path: &str) -> Result<Tensor, ImportError> {
        self.view(path)?.tensor()
    }

    /// All tensors.
    pub(super) fn tensors(&self) -> Result<BTreeMap<String, Tensor>, ImportError> {
        self.tensors.iter().map(|(path, view)| Ok((path.clone(), view.tensor()?))).collect()
    }

    /// The shape of a tensor of `RANK` axes.
    pub(super) fn shape<const RANK: usize>(
        &self,
        path: &str,
    ) -> Result<[usize; RANK], ImportError> {
        let shape = self.view(path)?.shape();
        shape.try_into().map_err(|_| {
            ImportError::Format(format!("{path} is {shape:?}: {RANK} axes are needed"))
        })
    }

    /// A file in safetensors; what its metadata hold as JSON objects become settings.
    pub(super) fn from_safetensors(bytes: &[u8]) -> Result<Self, ImportError> {
        let damaged = |e: &dyn std::fmt::Display| ImportError::Format(format!("safetensors: {e}"));
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(&e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(&e))?;
        let mut state = Self::default();
        for (name, view) in file.tensors() {
            let kind = match view.dtype() {
                Dtype::F64 => Kind::F64,
                Dtype::F32 => Kind::F32,
                Dtype::F16 => Kind::F16,
                Dtype::BF16 => Kind::BF16,
                Dtype::I64 => Kind::I64,
                Dtype::I32 => Kind::I32,
                Dtype::U8 | Dtype::BOOL => Kind::U8,
                _ => continue,
            };
            let data: Arc<[u8]> = view.data().into();
            state.insert(&name, View::all(data, kind, view.shape().to_vec(), false)?);
        }
        for (name, text) in header.metadata().iter().flatten() {
            let Ok(serde_json::Value::Object(settings)) = serde_json::from_str(text) else {
                continue;
            };
            for (key, value) in settings {
                let number = value.as_f64().or(value.as_bool().map(|b| f64::from(u8::from(b))));
                if let Some(number) = number {
                    state.insert_number(format!("{name}.{key}"), number);
                }
            }
        }
        Ok(state)
    }
}

/// Whether a file begins as safetensors do.
pub(super) fn is_safetensors(bytes: &[u8]) -> bool {
    let header = bytes.first_chunk::<8>().map(|n| u64::from_le_bytes(*n));
    header.is_some_and(|n| n <= MAX_HEADER) && bytes.get(8) == Some(&b'{')
}
