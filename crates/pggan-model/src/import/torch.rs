//! What `torch.save` writes: a pickle and the numbers of its tensors, in a zip archive or, before PyTorch 1.6, one after the
//! other.

use std::collections::BTreeMap;
use std::io::{Cursor, Read as _};
use std::sync::Arc;

use super::ImportError;
use super::array::{Kind, View};
use super::pickle::{self, Id, Object, Pickle, Value};
use super::state::State;

/// The first pickle of the older form is this number.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// Dictionaries in dictionaries are looked into so far.
const MAX_DEPTH: usize = 4;

/// Entries of all dictionaries together.
const MAX_ENTRIES: usize = 1 << 17;

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

/// Whether a file is one of these: a zip archive, or a pickle of the number that only PyTorch begins with.
pub(super) fn recognize(bytes: &[u8]) -> bool {
    let start = &bytes[..bytes.len().min(16)];
    bytes.starts_with(b"PK\x03\x04") || start.windows(MAGIC.len()).any(|number| number == MAGIC)
}

/// All tensors and numbers of a file, by their paths.
pub(super) fn read(bytes: &[u8]) -> Result<State, ImportError> {
    let archive = if bytes.starts_with(b"PK") {
        Archive::from_zip(bytes)
    } else {
        Archive::from_sequence(bytes)
    }?;
    let mut state = State::default();
    archive.walk("", archive.pickle.root(), 0, &mut MAX_ENTRIES.clone(), &mut state)?;
    Ok(state)
}

struct Archive {
    pickle: Pickle,
    /// Bytes of the storages, by key.
    storages: BTreeMap<String, Arc<[u8]>>,
}

impl Archive {
    fn from_zip(bytes: &[u8]) -> Result<Self, ImportError> {
        let damaged =
            |e: &dyn std::fmt::Display| ImportError::Format(format!("its zip archive: {e}"));
        let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| damaged(&e))?;
        // PyTorch stores and never compresses, so all entries together are no larger than the file.
        let mut left = bytes.len() as u64;
        let mut read = |zip: &mut zip::ZipArchive<Cursor<&[u8]>>, name: &str| {
            let mut entry = zip.by_name(name).map_err(|e| damaged(&e))?;
            if entry.compression() != zip::CompressionMethod::Stored || entry.size() > left {
                let reason = format!("its entry {name} is compressed, or shares its bytes");
                return Err(ImportError::Format(reason));
            }
            let mut data = Vec::new();
            entry.by_ref().take(left).read_to_end(&mut data).map_err(|e| damaged(&e))?;
            left -= data.len() as u64;
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
            storages.insert(name[folder.len()..].to_owned(), read(&mut zip, name)?.into());
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
        let (_magic, _protocol, _machine) = (next()?, next()?, next()?);
        let (pickle, keys) = (next()?, next()?);
        // Element sizes are the pickle's to say: a storage's own bytes follow its count of elements.
        let storages = pickle.ids().filter_map(|id| pickle.storage(id));
        let sizes: BTreeMap<String, usize> =
            storages.map(|storage| (storage.key, storage.kind.size())).collect();
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
            storages.insert(key.to_owned(), data.into());
        }
        Ok(Self { pickle, storages })
    }

    /// Puts what `id` stands for into `state`, and of a dictionary or an object what is in it.
    fn walk(
        &self,
        path: &str,
        id: Id,
        depth: usize,
        left: &mut usize,
        state: &mut State,
    ) -> Result<(), ImportError> {
        if let Some(view) = self.tensor(id)? {
            state.insert(path, view);
        } else if let Some(number) = self.pickle.number(id) {
            state.insert_number(path.to_owned(), number);
        } else if let Some(entries) = self.pickle.entries(id).filter(|_| depth < MAX_DEPTH) {
            for &(key, value) in entries {
                *left = left.checked_sub(1).ok_or_else(|| {
                    ImportError::Format("more entries than any file of weights".to_owned())
                })?;
                if let Some(key) = self.pickle.str(key) {
                    let path =
                        if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    self.walk(&path, value, depth + 1, left, state)?;
                }
            }
        }
        Ok(())
    }

    /// The tensor that a value would make, if it would make one.
    fn tensor(&self, mut id: Id) -> Result<Option<View>, ImportError> {
        // A parameter is a tensor in a wrapping; one that wraps itself is none.
        let mut wrappings = 0;
        let (name, args) = loop {
            match self.pickle.object(id) {
                Some(Object { name: "_rebuild_parameter", args: &[inner, ..], .. })
                    if wrappings < 4 =>
                {
                    id = inner;
                }
                Some(Object { name, args, .. }) => break (name, args),
                None => return Ok(None),
            }
            wrappings += 1;
        };
        let (true, &[storage, offset, size, stride, ..]) =
            (name.starts_with("_rebuild_tensor"), args)
        else {
            return Ok(None);
        };
        let damaged = |what: &str| ImportError::Format(format!("a tensor {what}"));
        // Of a type that no weights have.
        let Some(storage) = self.pickle.storage(storage) else { return Ok(None) };
        let data = self.storages.get(&storage.key).ok_or_else(|| damaged("without its numbers"))?;
        let (Some(size), Some(stride), Some(offset)) = (
            self.pickle.sizes(size),
            self.pickle.sizes(stride),
            self.pickle.number(offset).map(|offset| offset as usize),
        ) else {
            return Err(damaged("without a shape"));
        };
        View::new(data.clone(), storage.kind, offset, size, stride).map(Some)
    }
}

/// Where a tensor's numbers lie.
struct Storage {
    key: String,
    kind: Kind,
}

impl Pickle {
    /// The storage that a value stands for, if it holds numbers of a type that is known here.
    fn storage(&self, id: Id) -> Option<Storage> {
        let Value::Persistent(id) = self.get(id) else { return None };
        let &[tag, class, key, ..] = self.sequence(*id)? else { return None };
        let kind = match (self.str(tag)?, self.global(class)?.1) {
            ("storage", "DoubleStorage") => Kind::F64,
            ("storage", "FloatStorage") => Kind::F32,
            ("storage", "HalfStorage") => Kind::F16,
            ("storage", "BFloat16Storage") => Kind::BF16,
            ("storage", "LongStorage") => Kind::I64,
            ("storage", "IntStorage") => Kind::I32,
            ("storage", "ByteStorage" | "BoolStorage") => Kind::U8,
            _ => return None,
        };
        Some(Storage { key: self.str(key)?.to_owned(), kind })
    }
}
