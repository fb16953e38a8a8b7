//! Weights of feature networks by name, and where they come from.
//!
//! A file is a safetensors one with PyTorch's names, and one metadata entry that says what file it was made from and
//! has a BLAKE3 of all tensors. Numbers of a metric are worth what its network is, so the origin stays with them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::{Error, Result};

/// The metadata entry.
const KEY: &str = "pggan-features";

/// Tensors that a network is made of; each is taken once.
#[derive(Debug, Clone, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    provenance: Provenance,
}

/// Where weights come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// SHA-256 of the file that was read at first, in hexadecimal digits.
    pub source_sha256: String,
    /// BLAKE3 of the tensors.
    pub blake3: String,
}

impl Provenance {
    /// The network whose published file this is; none if it is no file that is known here.
    pub fn kind(&self) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| self.source_sha256.starts_with(kind.sha256()))
    }
}

impl Weights {
    /// Tensors by name, with shape and numbers, read from a file with this SHA-256.
    pub fn new(tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>, source_sha256: &str) -> Self {
        let blake3 = sum(&tensors);
        let provenance = Provenance { source_sha256: source_sha256.to_owned(), blake3 };
        Self { tensors, provenance }
    }

    /// Reads a safetensors file. One that we did not write is its own origin: `sha256` is that of `bytes`.
    pub fn from_safetensors(bytes: &[u8], sha256: &str) -> Result<Self> {
        let damaged = |reason: String| Error::DamagedWeights { reason };
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
        let (_, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(format!("{name} is not of 32 bit floating-point numbers")));
            }
            let numbers = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b));
            tensors.insert(name, (view.shape().to_vec(), numbers.collect()));
        }
        let weights = Self::new(tensors, sha256);
        let Some(text) = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)) else {
            return Ok(weights);
        };
        let provenance: Provenance =
            serde_json::from_str(text).map_err(|e| damaged(e.to_string()))?;
        if provenance.blake3 != weights.provenance.blake3 {
            return Err(damaged("its tensors do not have the BLAKE3 that it states".to_owned()));
        }
        Ok(Self { provenance, ..weights })
    }

    /// The bytes of a safetensors file: the same for the same weights.
    pub fn to_safetensors(&self) -> Vec<u8> {
        let text = serde_json::to_string(&self.provenance).expect("two strings have a JSON form");
        let views = self.tensors.iter().map(|(name, (shape, numbers))| {
            let bytes = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
            (name, Entry { shape, bytes })
        });
        safetensors::serialize(views, Some([(KEY.to_owned(), text)].into()))
            .expect("shapes and numbers belong together")
    }

    /// Where they come from.
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Takes a tensor of a shape out.
    pub(super) fn take(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        match self.tensors.remove(name) {
            Some((found, numbers)) if found == shape => Ok(numbers),
            Some((found, _)) => {
                let (name, expected) = (name.to_owned(), shape.to_vec());
                Err(Error::WeightShape { name, expected, found })
            }
            None => Err(Error::MissingWeight { name: name.to_owned() }),
        }
    }

    /// Forgets what belongs to a part that is not needed.
    pub(super) fn leave_out(&mut self, prefix: &str) {
        self.tensors.retain(|name, _| !name.starts_with(prefix));
    }

    /// All must have been taken by now.
    pub(super) fn finish(self) -> Result<()> {
        match self.tensors.first_key_value() {
            None => Ok(()),
            Some((first, _)) => {
                Err(Error::ExtraWeights { count: self.tensors.len(), first: first.clone() })
            }
        }
    }
}

/// The BLAKE3 of tensors, in their names' order.
fn sum(tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, (shape, numbers)) in tensors {
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
        hasher.update(&(shape.len() as u64).to_le_bytes());
        for side in shape {
            hasher.update(&(*side as u64).to_le_bytes());
        }
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

struct Entry<'a> {
    shape: &'a [usize],
    bytes: Vec<u8>,
}

impl View for Entry<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        (&self.bytes[..]).into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Weights {
        let tensors = [("a.weight", vec![2, 1], vec![1.5, -2.0]), ("b", vec![], vec![3.0])];
        let tensors = tensors.map(|(name, shape, numbers)| (name.to_owned(), (shape, numbers)));
        Weights::new(tensors.into(), "b0353104")
    }

    #[test]
    fn files_keep_numbers_and_origin_and_damage_is_found() {
        let bytes = weights().to_safetensors();
        assert_eq!(Weights::from_safetensors(&bytes, "its own").unwrap(), weights());
        let mut damaged = bytes.clone();
        *damaged.last_mut().unwrap() ^= 1;
        for bytes in [&damaged[..], &bytes[..bytes.len() - 1], b"", b"{}"] {
            let error = Weights::from_safetensors(bytes, "").unwrap_err();
            assert!(matches!(error, Error::DamagedWeights { .. }), "{error}");
        }
    }

    #[test]
    fn files_are_known_by_their_hash() {
        let of = |sha: &str| Weights::new(BTreeMap::new(), sha).provenance().kind();
        for kind in Kind::ALL {
            assert_eq!(of(&format!("{:0<64}", kind.sha256())), Some(kind));
        }
        assert_eq!(of(&"0".repeat(64)), None);
    }

    #[test]
    fn each_tensor_is_asked_for_once() {
        let mut weights = weights();
        assert!(matches!(weights.take("c", &[1]), Err(Error::MissingWeight { .. })));
        assert!(matches!(weights.clone().take("a.weight", &[2]), Err(Error::WeightShape { .. })));
        assert_eq!(weights.take("a.weight", &[2, 1]).unwrap(), [1.5, -2.0]);
        assert!(matches!(weights.clone().finish(), Err(Error::ExtraWeights { count: 1, .. })));
        weights.leave_out("b");
        weights.finish().unwrap();
    }
}
