//! What `torch.save` writes: a pickle and the numbers of its tensors, in a zip archive or, before PyTorch 1.6, one after the
//! other.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};

use candle_core::{Device, Tensor};

use super::ImportError;
use super::pickle::{self, Id, Pickle, Value};

/// The first pickle of the older form is this number.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// A file of `torch.save`, read.
pub(super) struct Archive {
    pub(super) pickle: Pickle,
    /// Bytes of the storages, by key.
    storages: BTreeMap<String, Vec<u8>>,
}

/// Names that stand for data; the classes of settings are kept as what they hold.
fn allowed(module: &str, name: &str) -> bool {
    match module {
        "torch._utils" => {
            ["_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter"].contains(&name)
        }
        "torch" => name.ends_with("Storage") || name == "Size" || name == "device",
        "torch.storage" => name == "UntypedStorage" || name == "TypedStorage",
        "collections" => name == "OrderedDict" || name == "defaultdict",
        // pytorch_GAN_zoo's settings: an object of which only the attributes are read.
        "models.utils.config" => name == "BaseConfig",
        _ => false,
    }
}

impl Archive {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, ImportError> {
        if bytes.starts_with(b"PK\x03\x04") {
            Self::from_zip(bytes)
        } else {
            Self::from_sequence(bytes)
        }
    }

    fn from_zip(bytes: &[u8]) -> Result<Self, ImportError> {
        let damaged =
            |e: &dyn std::fmt::Display| ImportError::Format(format!("its zip archive: {e}"));
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(&e))?;
        let read = |zip: &mut zip::ZipArchive<Cursor<&[u8]>>, name: &str| {
            let mut entry = zip.by_name(name).map_err(|e| damaged(&e))?;
            // PyTorch stores and never compresses: more than the file's own size is a lie.
            if entry.compression() != zip::CompressionMethod::Stored
                || entry.size() > bytes.len() as u64
            {
                return Err(ImportError::Format(format!("its entry {name} is compressed")));
            }
            let mut data = Vec::new();
            entry
                .by_ref()
                .take(bytes.len() as u64)
                .read_to_end(&mut data)
                .map_err(|e| damaged(&e))?;
            Ok(data)
        };
        let names: Vec<String> =
            zip.file_names().flatten().map(std::borrow::Cow::into_owned).collect();
        let Some(prefix) = names.iter().find_map(|name| name.strip_suffix("data.pkl")) else {
            return Err(ImportError::Format("its zip archive has no data.pkl".to_owned()));
        };
        let (pickle, _) = pickle::read(&read(&mut zip, &format!("{prefix}data.pkl"))?, &allowed)?;
        let folder = format!("{prefix}data/");
        let mut storages = BTreeMap::new();
        for name in names.iter().filter(|name| name.starts_with(&folder)) {
            storages.insert(name[folder.len()..].to_owned(), read(&mut zip, name)?);
        }
        Ok(Self { pickle, storages })
    }

    fn from_sequence(bytes: &[u8]) -> Result<Self, ImportError> {
        let mut at = 0;
        let mut next = || {
            let (pickle, len) = pickle::read(&bytes[at..], &allowed)?;
            at += len;
            Ok::<_, ImportError>(pickle)
        };
        let magic = next()?;
        if !matches!(magic.get(magic.root()), Value::Bytes(number) if **number == MAGIC) {
            let reason = "it is neither a zip archive nor a file of torch.save".to_owned();
            return Err(ImportError::Format(reason));
        }
        let (_protocol, _machine) = (next()?, next()?);
        let (pickle, keys) = (next()?, next()?);
        // Element sizes are the pickle's to say: a storage's own bytes follow its count of elements.
        let sizes: BTreeMap<String, usize> = pickle
            .storages()
            .into_iter()
            .map(|storage| (storage.key, storage.kind.size()))
            .collect();
        let damaged =
            || ImportError::Format("the numbers behind its pickles end too early".to_owned());
        let mut storages = BTreeMap::new();
        for key in keys.sequence(keys.root()).unwrap_or_default() {
            let key = keys.str(*key).ok_or_else(damaged)?;
            let size = sizes.get(key).copied().ok_or_else(damaged)?;
            let count = bytes.get(at..at + 8).ok_or_else(damaged)?;
            let count = u64::from_le_bytes(count.try_into().map_err(|_| damaged())?);
            let len = usize::try_from(count).ok().and_then(|n| n.checked_mul(size));
            let data = len.and_then(|len| bytes[at + 8..].get(..len)).ok_or_else(damaged)?;
            at += 8 + data.len();
            storages.insert(key.to_owned(), data.to_vec());
        }
        Ok(Self { pickle, storages })
    }

    /// The tensors of a dictionary, by key; entries that are none are left out.
    pub(super) fn tensors(&self, dict: Id) -> Result<BTreeMap<String, Tensor>, ImportError> {
        let Some(entries) = self.pickle.entries(dict) else {
            return Err(ImportError::Format("its weights are no dictionary".to_owned()));
        };
        let mut tensors = BTreeMap::new();
        for &(key, value) in entries {
            if let (Some(key), Some(tensor)) = (self.pickle.str(key), self.tensor(value)?) {
                tensors.insert(key.to_owned(), tensor);
            }
        }
        Ok(tensors)
    }

    fn tensor(&self, mut id: Id) -> Result<Option<Tensor>, ImportError> {
        // A parameter is a tensor in a wrapping; one that wraps itself is none.
        let mut wrappings = 0;
        let (args, name) = loop {
            let Value::Object { class, args, .. } = self.pickle.get(id) else { return Ok(None) };
            let (Some(args), Some((_, name))) =
                (self.pickle.sequence(*args), self.pickle.global(*class))
            else {
                return Ok(None);
            };
            match (name, args) {
                ("_rebuild_parameter", &[inner, ..]) if wrappings < 4 => id = inner,
                _ => break (args, name),
            }
            wrappings += 1;
        };
        let damaged = |what: &str| ImportError::Format(format!("a tensor {what}"));
        let (true, &[storage, offset, size, stride, ..]) =
            (name.starts_with("_rebuild_tensor"), args)
        else {
            return Ok(None);
        };
        let Some(storage) = self.pickle.storage(storage) else {
            return Err(damaged("of a type that is not read here; floating-point numbers are"));
        };
        let data = self.storages.get(&storage.key).ok_or_else(|| damaged("without its numbers"))?;
        let (Some(size), Some(stride), Some(offset)) = (
            self.pickle.sizes(size),
            self.pickle.sizes(stride),
            self.pickle.number(offset).map(|offset| offset as usize),
        ) else {
            return Err(damaged("without a shape"));
        };
        let elements = data.len() / storage.kind.size();
        let count = size.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        let (Some(count), true) = (count.filter(|n| *n <= elements), size.len() == stride.len())
        else {
            return Err(damaged("larger than its numbers"));
        };
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; size.len()];
        for _ in 0..count {
            let mut steps = index.iter().zip(&stride);
            let at =
                steps.try_fold(offset, |at, (&i, &s)| at.checked_add(usize::checked_mul(i, s)?));
            let value = at.and_then(|at| storage.kind.value(data, at));
            values.push(value.ok_or_else(|| damaged("that reaches beyond its numbers"))?);
            for axis in (0..size.len()).rev() {
                index[axis] += 1;
                if index[axis] < size[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(Some(Tensor::from_vec(values, size, &Device::Cpu)?))
    }
}

/// Where a tensor's numbers lie.
struct Storage {
    key: String,
    kind: Kind,
}

/// The types of numbers that weights come in.
#[derive(Clone, Copy)]
enum Kind {
    F64,
    F32,
    F16,
    BF16,
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Kind::F64 => 8,
            Kind::F32 => 4,
            Kind::F16 | Kind::BF16 => 2,
        }
    }

    fn value(self, data: &[u8], at: usize) -> Option<f32> {
        let start = at.checked_mul(self.size())?;
        let bytes = data.get(start..start.checked_add(self.size())?)?;
        Some(match self {
            Kind::F64 => f64::from_le_bytes(bytes.try_into().ok()?) as f32,
            Kind::F32 => f32::from_le_bytes(bytes.try_into().ok()?),
            Kind::F16 => half::f16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
            Kind::BF16 => half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
        })
    }
}

impl Pickle {
    /// The storage that a value stands for, if it holds floating-point numbers.
    fn storage(&self, id: Id) -> Option<Storage> {
        let Value::Persistent(id) = self.get(id) else { return None };
        let &[tag, class, key, ..] = self.sequence(*id)? else { return None };
        let kind = match (self.str(tag)?, self.global(class)?.1) {
            ("storage", "DoubleStorage") => Kind::F64,
            ("storage", "FloatStorage") => Kind::F32,
            ("storage", "HalfStorage") => Kind::F16,
            ("storage", "BFloat16Storage") => Kind::BF16,
            _ => return None,
        };
        Some(Storage { key: self.str(key)?.to_owned(), kind })
    }

    fn storages(&self) -> Vec<Storage> {
        self.ids().filter_map(|id| self.storage(id)).collect()
    }
}
