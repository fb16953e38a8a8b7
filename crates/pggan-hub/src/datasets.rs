//! Data sets: which files there are, and the files.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use hf_hub::api::Progress;
use hf_hub::api::sync::ApiError;
use hf_hub::{Repo, RepoType};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{Hub, HubError, HubId};

/// Files that are brought at a time.
const CONNECTIONS: usize = 4;
/// The longest list of files that is read.
const MAX_LIST_BYTES: u64 = 256 << 20;
/// How often it is tried, for five seconds, to be the one who brings a file.
const LOCK_TRIES: u32 = 120;
/// Progress is told after so many bytes.
const STEP: u64 = 1 << 20;

/// A data set on the hub as it was at one commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    /// `owner/name`.
    pub name: String,
    /// Which state of it this is.
    pub commit: String,
    /// All files, in the order of their names.
    pub files: Vec<DatasetFile>,
}

/// A file of a [`Dataset`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatasetFile {
    /// Its path in the data set.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 that the hub states, which it does of large files.
    pub sha256: Option<String>,
}

impl Hub {
    /// The files of a data set at `revision`, a branch, a tag or a commit. The list is kept in the cache, where it is found
    /// without the hub.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn dataset(&self, id: &HubId, revision: &str) -> Result<Dataset, HubError> {
        let repo = Repo::with_revision(id.name(), RepoType::Dataset, revision.to_owned());
        let folder = self.cache.path().join(repo.folder_name());
        let note = folder.join("pggan").join(revision.replace('/', "--")).with_extension("json");
        let what = format!("{id}: the list of files");
        if self.offline {
            let known = fs::read(&note).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            return known.ok_or(HubError::Offline { what });
        }
        let ask = || -> Result<Info, ApiError> {
            let api = self.api()?;
            let request = api.repo(repo).info_request().query("blobs", "true");
            let body = request.call().map_err(Box::new)?.into_body();
            let body = body.into_with_config().limit(MAX_LIST_BYTES);
            Ok(body.read_json().map_err(Box::new)?)
        };
        let info = ask().map_err(|error| self.explain(&id.to_string(), error))?;
        let refuse = |reason: &str| HubError::Transfer {
            what: what.clone(),
            endpoint: self.endpoint.clone(),
            reason: reason.to_owned(),
        };
        let mut files: Vec<DatasetFile> = info.siblings.into_iter().map(Sibling::file).collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        // Both become parts of paths on this machine.
        let is_plain = |name: &str| {
            Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
        };
        if let Some(file) = files.iter().find(|file| !is_plain(&file.name)) {
            return Err(refuse(&format!("a file is called {:?}", file.name)));
        }
        if !info.sha.bytes().all(|c| c.is_ascii_hexdigit()) || info.sha.is_empty() {
            return Err(refuse(&format!("the commit is called {:?}", info.sha)));
        }
        let dataset = Dataset { name: id.name(), commit: info.sha, files };
        write(&note, &serde_json::to_vec(&dataset).expect("strings and numbers always serialize"))?;
        Ok(dataset)
    }

    /// Some files of a data set, from the cache or brought there first, several at a time; returns where they are. What has come
    /// before a connection broke, or a run was killed, is gone on from. Lengths and sums are compared, of files in the cache too.
    ///
    /// `progress` is told how many bytes are there, and of how many.
    ///
    /// # Errors
    /// [`HubError`]: that of the first file that failed.
    pub fn fetch(
        &self,
        dataset: &Dataset,
        files: &[&DatasetFile],
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Vec<PathBuf>, HubError> {
        let total = files.iter().map(|file| file.bytes).sum();
        let (news, arriving) = channel();
        let queue = Mutex::new(files.iter().enumerate());
        let mut paths = vec![PathBuf::new(); files.len()];
        let mut there = BTreeMap::new();
        thread::scope(|scope| {
            for _ in 0..CONNECTIONS.min(files.len()) {
                let (news, queue) = (news.clone(), &queue);
                scope.spawn(move || {
                    let next = || queue.lock().ok()?.next();
                    while let Some((index, file)) = next() {
                        let meter = Meter { index, bytes: 0, told: 0, news: &news };
                        let fetched = self.fetch_one(dataset, file, meter);
                        // Whoever listened went away with an error.
                        if news.send(News::Done(index, fetched)).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(news);
            for news in arriving {
                let (index, bytes) = match news {
                    News::Bytes(index, bytes) => (index, bytes),
                    News::Done(index, fetched) => {
                        paths[index] = fetched.inspect_err(|_| {
                            // The others are not begun.
                            if let Ok(mut queue) = queue.lock() {
                                queue.by_ref().for_each(drop);
                            }
                        })?;
                        (index, files[index].bytes)
                    }
                };
                there.insert(index, bytes);
                progress(there.values().sum(), total);
            }
            Ok(paths)
        })
    }

    fn fetch_one(
        &self,
        dataset: &Dataset,
        file: &DatasetFile,
        meter: Meter<'_>,
    ) -> Result<PathBuf, HubError> {
        let DatasetFile { name, bytes, sha256 } = file;
        let what = format!("{}/{name}", dataset.name);
        // The commit, not the branch: all files are of one state.
        let repo =
            Repo::with_revision(dataset.name.clone(), RepoType::Dataset, dataset.commit.clone());
        let cache = self.cache.repo(repo.clone());
        let path = match cache.get(name) {
            Some(path) => path,
            None if self.offline => return Err(HubError::Offline { what }),
            None => {
                if let Some(sum) = sha256 {
                    let part = cache.blob_path(sum).with_extension("part");
                    drop_whole(&part, *bytes)
                        .map_err(|source| HubError::Io { path: part, source })?;
                }
                let mut tries = 1;
                loop {
                    let meter = Meter { bytes: 0, ..meter };
                    let download =
                        || self.api()?.repo(repo.clone()).download_with_progress(name, meter);
                    match download() {
                        // Somebody else brings the same file.
                        Err(ApiError::LockAcquisition(_)) if tries < LOCK_TRIES => tries += 1,
                        done => break done.map_err(|error| self.explain(&what, error))?,
                    }
                }
            }
        };
        let io = |source| HubError::Io { path: path.clone(), source };
        let mut content = File::open(&path).map_err(io)?;
        let mut is_right = content.metadata().map_err(io)?.len() == *bytes;
        if let (true, Some(sum)) = (is_right, sha256) {
            is_right = sha256_of(&mut content).map_err(io)?.eq_ignore_ascii_case(sum);
        }
        if is_right {
            return Ok(path);
        }
        // The name in the snapshot, and what it stands for.
        if let Ok(blob) = path.canonicalize() {
            fs::remove_file(blob).map_err(io)?;
        }
        fs::remove_file(&path).ok();
        Err(HubError::Corrupt { what, endpoint: self.endpoint.clone() })
    }
}

/// What a thread tells.
enum News {
    Bytes(usize, u64),
    Done(usize, Result<PathBuf, HubError>),
}

/// Counts the bytes of one file.
#[derive(Clone, Copy)]
struct Meter<'a> {
    index: usize,
    bytes: u64,
    told: u64,
    news: &'a Sender<News>,
}

impl Progress for Meter<'_> {
    /// Begins, or begins again after the connection broke.
    fn init(&mut self, _: usize, _: &str) {
        (self.bytes, self.told) = (0, 0);
    }

    fn update(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.bytes >= self.told + STEP {
            self.told = self.bytes;
            self.news.send(News::Bytes(self.index, self.bytes)).ok();
        }
    }

    fn finish(&mut self) {}
}

/// What the hub says about a data set.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl Sibling {
    fn file(self) -> DatasetFile {
        let sha256 = self.lfs.map(|lfs| lfs.sha256);
        DatasetFile { name: self.rfilename, bytes: self.size, sha256 }
    }
}

/// Removes the beginning of a file if it is all of it: it came, and its run died before it could be named, so that there
/// is no rest to ask for. Whoever is about to name it, an equal file's thread or another process, holds the lock.
fn drop_whole(part: &Path, bytes: u64) -> io::Result<()> {
    let is_whole = || part.metadata().is_ok_and(|part| part.len() >= bytes);
    if !is_whole() {
        return Ok(());
    }
    // The lock is `hf-hub`'s own, which it takes from before the first byte until the file has its name.
    let lock = File::create(part.with_extension("lock"))?;
    match lock.try_lock() {
        Ok(()) if is_whole() => fs::remove_file(part),
        Ok(()) | Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn sha256_of(content: &mut File) -> io::Result<String> {
    let (mut hasher, mut piece) = (Sha256::new(), vec![0; 1 << 18]);
    loop {
        match content.read(&mut piece)? {
            0 => {
                return Ok(hasher
                    .finalize()
                    .iter()
                    .fold(String::new(), |text, byte| format!("{text}{byte:02x}")));
            }
            length => hasher.update(&piece[..length]),
        }
    }
}

/// Writes a small file whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let io = |source| HubError::Io { path: path.to_owned(), source };
    let partial = path.with_extension("partial");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(io)?;
    }
    let mut file = File::create(&partial).map_err(io)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io)?;
    fs::rename(&partial, path).map_err(io)
}
