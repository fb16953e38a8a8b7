//! Weights on disk: safetensors files that anyone can read, and that nobody has to trust.
//!
//! A file holds tensors and one metadata entry, `pggan`: a JSON document that says what they are, and a BLAKE3 sum
//! of them all, so that damage is found before it is trained on. The same content gives the same bytes. Files are written beside their destination and renamed into
//! place, so that a reader never sees half of one. A network's snapshot has the parts `g.`, `d.` and
//! `g_ema.` (the generator's running average, which makes the better images: paper, Appendix A.1).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};

use crate::{Discriminator, Error, Generator, Growth, ModelConfig, Params};

/// The metadata entry that holds our JSON document. One entry only: safetensors writes several in random order.
const KEY: &str = "pggan";

/// A header longer than this is hostile: the largest network has some hundred tensors.
const MAX_HEADER: u64 = 4 << 20;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotHeader {
    /// Version of this format: 1.
    pub format: u32,
    /// The shape of the networks.
    pub model: ModelConfig,
    /// log2 of the resolution that they have grown to.
    pub level: u32,
    /// Weight of the newest layer.
    pub alpha: f64,
    /// Real images that the discriminator has been shown.
    pub images_shown: u64,
    /// The data set's name.
    pub dataset: String,
}

impl SnapshotHeader {
    /// How far the networks have grown.
    pub fn growth(&self) -> Growth {
        Growth { level: self.level, alpha: self.alpha }
    }
}

/// The metadata entry.
#[derive(Serialize, Deserialize)]
struct Envelope {
    blake3: String,
    document: serde_json::Value,
}

/// Tensors by name, with a JSON document.
#[derive(Debug)]
pub struct Writer {
    tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)>,
    document: serde_json::Value,
}

impl Writer {
    /// A file that describes itself by `document`.
    ///
    /// # Errors
    /// [`Error::Tensor`] if `document` has no JSON form.
    pub fn new(document: &impl Serialize) -> Result<Self, Error> {
        let document = serde_json::to_value(document).map_err(candle_core::Error::wrap)?;
        Ok(Self { tensors: BTreeMap::new(), document })
    }

    /// Adds a tensor, as `f32`.
    ///
    /// # Errors
    /// If it cannot be brought to the CPU.
    pub fn tensor(&mut self, name: String, value: &Tensor) -> Result<(), Error> {
        let flat = value.to_device(&Device::Cpu)?.to_dtype(DType::F32)?.flatten_all()?;
        let bytes = flat.to_vec1::<f32>()?.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.tensors.insert(name, (value.dims().to_vec(), bytes));
        Ok(())
    }

    /// Adds a network's parameters as `part.name`.
    ///
    /// # Errors
    /// If they cannot be brought to the CPU.
    pub fn params(&mut self, part: &str, params: &Params) -> Result<(), Error> {
        params.iter().try_for_each(|p| self.tensor(format!("{part}.{}", p.name), &p.value))
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// If they cannot be put together.
    pub fn bytes(&self) -> Result<Vec<u8>, Error> {
        let sum = sum(self.tensors.iter().map(|(name, (_, bytes))| (name.as_str(), &bytes[..])));
        let envelope = Envelope { blake3: sum, document: self.document.clone() };
        let envelope = serde_json::to_string(&envelope).map_err(candle_core::Error::wrap)?;
        let views =
            self.tensors.iter().map(|(name, (shape, bytes))| (name, Entry { shape, bytes }));
        let bytes = safetensors::serialize(views, Some([(KEY.to_owned(), envelope)].into()));
        Ok(bytes.map_err(candle_core::Error::wrap)?)
    }

    /// Writes the file: to a temporary beside it, then in its place.
    ///
    /// # Errors
    /// [`Error::Io`]; what was at `path` is then still there.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        write_atomic(path, &self.bytes()?)
            .map_err(|source| Error::Io { path: path.to_owned(), source })
    }
}

/// The BLAKE3 of tensors by name, in the names' order.
fn sum<'a>(tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in tensors {
        hasher.update(name.as_bytes()).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
    }
    hasher.finalize().to_hex().to_string()
}

struct Entry<'a> {
    shape: &'a [usize],
    bytes: &'a [u8],
}

impl View for Entry<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }
    fn shape(&self) -> &[usize] {
        self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        self.bytes.into()
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes `bytes` so that `path` holds either what it held before or all of them, even after a power cut.
///
/// # Errors
/// The system's; what was at `path` is then still there.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".tmp-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    #[cfg(unix)]
    {
        // Temporary files are private; others on the same cluster should be able to read the result.
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// A file of weights in memory, its structure checked.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    document: serde_json::Value,
    tensors: BTreeMap<String, Tensor>,
}

impl File {
    /// Reads a file that [`Writer`] has written.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Damaged`] if it is not such a file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes =
            std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        Self::from_bytes(path, &bytes)
    }

    /// What a file holds, in memory; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not such a file.
    pub fn from_bytes(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let header = bytes.first_chunk::<8>().map(|n| u64::from_le_bytes(*n));
        if header.is_none_or(|n| n > MAX_HEADER) {
            return Err(damaged("it does not begin with a safetensors header".to_owned()));
        }
        let file = SafeTensors::deserialize(bytes).map_err(|e| damaged(e.to_string()))?;
        let (_, metadata) =
            SafeTensors::read_metadata(bytes).map_err(|e| damaged(e.to_string()))?;
        let entries = metadata.metadata().as_ref();
        let envelope = entries.and_then(|m| m.get(KEY)).ok_or_else(|| {
            damaged(format!("it has no {KEY:?} entry: was it written by this program?"))
        })?;
        let Envelope { blake3, document } =
            serde_json::from_str(envelope).map_err(|e| damaged(e.to_string()))?;
        let views: BTreeMap<_, _> = file.tensors().into_iter().collect();
        if sum(views.iter().map(|(name, view)| (name.as_str(), view.data()))) != blake3 {
            return Err(damaged("its weights are not those that were written".to_owned()));
        }
        let mut tensors = BTreeMap::new();
        for (name, view) in views {
            if view.dtype() != Dtype::F32 {
                return Err(damaged(format!("tensor {name} is {:?}, not F32", view.dtype())));
            }
            let (chunks, _) = view.data().as_chunks::<4>();
            let values: Vec<f32> = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
            tensors.insert(name, Tensor::from_vec(values, view.shape(), &Device::Cpu)?);
        }
        Ok(Self { path: path.to_owned(), document, tensors })
    }

    /// The file's description of itself.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is not what `T` expects.
    pub fn document<T: serde::de::DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&self.document)
            .map_err(|e| Error::Damaged { path: self.path.clone(), reason: e.to_string() })
    }

    /// What the file is a snapshot of.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it is of nothing that could be.
    fn header(&self) -> Result<SnapshotHeader, Error> {
        let header: SnapshotHeader = self.document()?;
        let damaged = |reason: String| Error::Damaged { path: self.path.clone(), reason };
        if header.format != 1 {
            return Err(damaged(format!("format {} is newer than this program", header.format)));
        }
        header.model.validate().map_err(|e| damaged(e.to_string()))?;
        let levels = 2..=header.model.max_level();
        if !levels.contains(&header.level) || !(0.0..=1.0).contains(&header.alpha) {
            return Err(damaged(format!("level {} with alpha {}", header.level, header.alpha)));
        }
        Ok(header)
    }

    fn generator(
        &self,
        part: &str,
        model: &ModelConfig,
        dtype: DType,
        device: &Device,
    ) -> Result<Generator, Error> {
        // A header must not ask for more memory than its file has weights.
        let (stated, held) = (model.generator_parameters(), self.count(part));
        if stated != held {
            let reason = format!("its header states {stated} parameters, but it holds {held}");
            return Err(Error::Damaged { path: self.path.clone(), reason });
        }
        let mut generator = Generator::new(model, dtype, device, &mut |_, _| ())?;
        self.load(part, generator.params_mut())?;
        Ok(generator)
    }

    /// How many numbers the tensors `part.*` hold.
    pub fn count(&self, part: &str) -> usize {
        let of_part = |name: &str| name.strip_prefix(part).is_some_and(|n| n.starts_with('.'));
        let tensors = self.tensors.iter().filter(|(name, _)| of_part(name));
        tensors.map(|(_, t)| t.elem_count()).sum()
    }

    /// Fills `params` from the tensors `part.name`.
    ///
    /// # Errors
    /// [`Error::Mismatch`], naming every tensor of that part that is missing, unknown or of another shape;
    /// `params` are then as they were.
    pub fn load(&self, part: &str, params: &mut Params) -> Result<(), Error> {
        let prefix = format!("{part}.");
        let mut unknown: BTreeMap<&str, &Tensor> = self
            .tensors
            .iter()
            .filter_map(|(name, t)| Some((name.strip_prefix(&prefix)?, t)))
            .collect();
        let mut problems = Vec::new();
        let mut values = Vec::new();
        for param in params.iter() {
            let (name, shape) = (param.name.as_str(), param.value.dims());
            match unknown.remove(name) {
                None => problems.push(format!("{prefix}{name} is missing")),
                Some(t) if t.dims() != shape => problems
                    .push(format!("{prefix}{name} is {:?}, but {shape:?} is needed", t.dims())),
                Some(t) => values.push(t),
            }
        }
        problems.extend(unknown.keys().map(|name| format!("{prefix}{name} is unknown")));
        if !problems.is_empty() {
            let reason = problems.join(", ");
            return Err(Error::Mismatch { path: self.path.clone(), reason });
        }
        params.update(|i, _, value| {
            *value = values[i].to_dtype(value.dtype())?.to_device(value.device())?.copy()?;
            Ok(())
        })?;
        Ok(())
    }

    /// The tensors `part.name` in the order of `params`, where all of them have the shapes of theirs.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if one is missing or of another shape.
    pub fn state(&self, part: &str, params: &Params) -> Result<Vec<Tensor>, Error> {
        let mut state = Vec::new();
        for param in params.iter() {
            let name = format!("{part}.{}", param.name);
            match self.tensors.get(&name) {
                Some(t) if t.dims() == param.value.dims() => state.push(
                    t.to_dtype(param.value.dtype())?.to_device(param.value.device())?.copy()?,
                ),
                _ => {
                    let reason = format!("{name} is missing or of another shape");
                    return Err(Error::Mismatch { path: self.path.clone(), reason });
                }
            }
        }
        Ok(state)
    }
}

/// A snapshot's networks.
#[derive(Debug)]
pub struct Snapshot {
    /// What it is of.
    pub header: SnapshotHeader,
    /// The generator as it was trained.
    pub g: Generator,
    /// The discriminator.
    pub d: Discriminator,
    /// The generator's running average.
    pub g_ema: Generator,
}

/// Writes a snapshot: what people and other programs use.
///
/// # Errors
/// [`Error::Io`] if the file cannot be written.
pub fn write_snapshot(
    path: &Path,
    header: &SnapshotHeader,
    g: &Generator,
    d: &Discriminator,
    g_ema: &Generator,
) -> Result<(), Error> {
    let mut file = Writer::new(header)?;
    file.params("g", g.params())?;
    file.params("d", d.params())?;
    file.params("g_ema", g_ema.params())?;
    file.write(path)
}

/// Reads the averaged generator of a snapshot, and how far it has grown.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`], [`Error::Mismatch`]: each names the file.
pub fn read_generator(
    path: &Path,
    dtype: DType,
    device: &Device,
) -> Result<(Generator, SnapshotHeader), Error> {
    let file = File::open(path)?;
    let header = file.header()?;
    Ok((file.generator("g_ema", &header.model, dtype, device)?, header))
}

/// Reads a whole snapshot.
///
/// # Errors
/// As [`read_generator`].
pub fn read_snapshot(path: &Path, dtype: DType, device: &Device) -> Result<Snapshot, Error> {
    let file = File::open(path)?;
    let header = file.header()?;
    let g = file.generator("g", &header.model, dtype, device)?;
    let g_ema = file.generator("g_ema", &header.model, dtype, device)?;
    let mut d = Discriminator::new(&header.model, dtype, device, &mut |_, _| ())?;
    file.load("d", d.params_mut())?;
    Ok(Snapshot { header, g, d, g_ema })
}

/// The weights in a folder of a pretrained network: a snapshot.
pub const PRETRAINED_WEIGHTS: &str = "model.safetensors";

/// What they are, for people and other programs: the snapshot's header as JSON.
pub const PRETRAINED_CONFIG: &str = "config.json";

/// Whether a file was written by [`Writer`], as far as its header tells.
pub fn is_ours(bytes: &[u8]) -> bool {
    SafeTensors::read_metadata(bytes)
        .is_ok_and(|(_, header)| header.metadata().as_ref().is_some_and(|m| m.contains_key(KEY)))
}

/// Writes a network as a folder for others: [`PRETRAINED_WEIGHTS`] and [`PRETRAINED_CONFIG`].
///
/// # Errors
/// [`Error::Io`] if a file cannot be written.
pub fn write_pretrained(folder: &Path, snapshot: &Snapshot) -> Result<(), Error> {
    let Snapshot { header, g, d, g_ema } = snapshot;
    write_snapshot(&folder.join(PRETRAINED_WEIGHTS), header, g, d, g_ema)?;
    let mut text = serde_json::to_string_pretty(header).map_err(candle_core::Error::wrap)?;
    text.push('\n');
    let path = folder.join(PRETRAINED_CONFIG);
    write_atomic(&path, text.as_bytes()).map_err(|source| Error::Io { path, source })
}

/// Checks that a pretrained network's [`PRETRAINED_CONFIG`] is of the weights beside it.
///
/// # Errors
/// [`Error::Io`], [`Error::Damaged`], or [`Error::Mismatch`] if it is of others.
pub fn check_pretrained(config: &Path, header: &SnapshotHeader) -> Result<(), Error> {
    let text = std::fs::read_to_string(config)
        .map_err(|source| Error::Io { path: config.to_owned(), source })?;
    let found: SnapshotHeader = serde_json::from_str(&text)
        .map_err(|e| Error::Damaged { path: config.to_owned(), reason: e.to_string() })?;
    if found == *header {
        return Ok(());
    }
    let reason = format!("it describes another network than the weights in {PRETRAINED_WEIGHTS}");
    Err(Error::Mismatch { path: config.to_owned(), reason })
}
