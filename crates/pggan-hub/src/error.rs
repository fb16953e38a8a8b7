use std::path::PathBuf;

/// What can go wrong between here and a hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The hub has no such thing, or shows it to others only.
    #[error("{what}: {endpoint} has no such repository or file, or not for you ({token})")]
    NotFound {
        /// What was asked for.
        what: String,
        /// The hub.
        endpoint: String,
        /// Whether a token was sent.
        token: &'static str,
    },
    /// The hub refused.
    #[error("{what}: {endpoint} answers {status}{reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// The hub.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// What it said to it.
        reason: String,
    },
    /// The connection failed.
    #[error("{what}: {endpoint}: {reason}")]
    Transfer {
        /// What was asked for.
        what: String,
        /// The hub.
        endpoint: String,
        /// Why.
        reason: String,
    },
    /// What came is not what the hub says it is.
    #[error(
        "{what}: what came from {endpoint} is not of the length or the SHA-256 that it states; it was removed, try again"
    )]
    Corrupt {
        /// The file.
        what: String,
        /// The hub.
        endpoint: String,
    },
    /// It is not in the cache, and the hub may not be asked.
    #[error("{what} is not in the cache, and HF_HUB_OFFLINE is set")]
    Offline {
        /// What was asked for.
        what: String,
    },
    /// Uploads need to say who they are from.
    #[error(
        "uploading to {repo} needs a token: set HF_TOKEN (one with write access, from {endpoint}/settings/tokens)"
    )]
    NoToken {
        /// The repository.
        repo: String,
        /// The hub.
        endpoint: String,
    },
    /// Neither a path nor a hub id.
    #[error("{0}: no such file or folder, nor the id of a network on the hub (OWNER/NAME)")]
    NotAnId(String),
    /// A folder with no network in it.
    #[error("{}: no network-snapshot-NNNNNN.safetensors or model.safetensors in this folder", .0.display())]
    NoNetwork(PathBuf),
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The files are not a network of ours.
    #[cfg(feature = "networks")]
    #[error(transparent)]
    Model(#[from] pggan_model::Error),
}

impl HubError {
    pub(crate) fn of_request(
        error: ureq::Error,
        what: String,
        endpoint: String,
        token: bool,
    ) -> Self {
        match error {
            ureq::Error::StatusCode(401 | 403 | 404) => {
                let token =
                    if token { "a token was sent" } else { "no token was sent; HF_TOKEN is one" };
                Self::NotFound { what, endpoint, token }
            }
            ureq::Error::StatusCode(status) => {
                Self::Refused { what, endpoint, status, reason: String::new() }
            }
            other => Self::Transfer { what, endpoint, reason: one_line(&other) },
        }
    }
}

pub(crate) fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}
