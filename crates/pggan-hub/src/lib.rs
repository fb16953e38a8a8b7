//! The Hugging Face hub: [`Hub`] brings files of networks and of data sets down into the cache that Python's tools share, and
//! networks up; [`FromPretrained`] (feature `networks`) makes a generator of either a path or a hub id.
//!
//! The environment is respected: `HF_ENDPOINT`, `HF_TOKEN` (or the file that `hf auth login` leaves), `HF_HOME`, and
//! `HF_HUB_OFFLINE`, with which nothing but the cache is asked.
//!
//! ```no_run
//! # #[cfg(feature = "networks")] {
//! use candle_core::{DType, Device, Tensor};
//! use pggan_hub::FromPretrained as _;
//! use pggan_model::Generator;
//!
//! let (generator, header) = Generator::from_pretrained("owner/faces-256")?;
//! let latents = Tensor::zeros((1, generator.config().latent_size()), DType::F32, &Device::Cpu)?;
//! let images = generator.generate(&latents, None, header.growth())?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod datasets;
mod error;
mod id;
#[cfg(feature = "networks")]
mod pretrained;
mod upload;

use std::env;
use std::path::PathBuf;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

pub use datasets::{Dataset, DatasetFile};
pub use error::HubError;
pub use id::HubId;
#[cfg(feature = "networks")]
pub use pretrained::{FromPretrained, locate};
pub use upload::UploadFile;

/// A hub, its cache on this machine, and who we are there.
#[derive(Debug)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    offline: bool,
    cache: Cache,
}

/// How often a download goes on after the connection has broken.
const RETRIES: usize = 3;

impl Hub {
    /// The hub that the environment names.
    pub fn from_env() -> Self {
        let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let cache =
            set("HF_HUB_CACHE").map_or_else(Cache::from_env, |path| Cache::new(path.into()));
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let yes = |value: String| ["1", "on", "yes", "true"].contains(&&*value.to_lowercase());
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: set("HF_TOKEN").or_else(|| Cache::from_env().token()),
            offline: set("HF_HUB_OFFLINE").is_some_and(yes),
            cache,
        }
    }

    /// A repository's file: from the cache, or brought there first. What has come before a connection broke is kept and
    /// gone on from.
    ///
    /// # Errors
    /// [`HubError`]: each says what was asked for, and where.
    pub fn download(&self, id: &HubId, file: &str) -> Result<PathBuf, HubError> {
        let repo = Self::repo(id);
        if self.offline {
            let found = self.cache.repo(repo).get(file);
            return found.ok_or_else(|| HubError::Offline { what: format!("{id}/{file}") });
        }
        let download = || self.api()?.repo(repo).get(file);
        download().map_err(|e| self.explain(&format!("{id}/{file}"), e))
    }

    /// The files in a repository.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn files(&self, id: &HubId) -> Result<Vec<String>, HubError> {
        if self.offline {
            return Err(HubError::Offline { what: format!("the list of files of {id}") });
        }
        let info = || self.api()?.repo(Self::repo(id)).info();
        let info = info().map_err(|e| self.explain(&id.to_string(), e))?;
        Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
    }

    fn repo(id: &HubId) -> Repo {
        let revision = id.revision().unwrap_or("main").to_owned();
        Repo::with_revision(id.name(), RepoType::Model, revision)
    }

    fn api(&self) -> Result<Api, ApiError> {
        let builder =
            ApiBuilder::from_cache(self.cache.clone()).with_endpoint(self.endpoint.clone());
        builder.with_token(self.token.clone()).with_progress(false).with_retries(RETRIES).build()
    }

    fn explain(&self, what: &str, error: ApiError) -> HubError {
        let (what, endpoint) = (what.to_owned(), self.endpoint.clone());
        match error {
            ApiError::RequestError(error) => {
                HubError::of_request(*error, what, endpoint, self.token.is_some())
            }
            ApiError::TooManyRetries(error) => self.explain(&what, *error),
            other => HubError::Transfer { what, endpoint, reason: error::one_line(&other) },
        }
    }
}
