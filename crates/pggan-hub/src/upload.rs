//! Uploads: the hub's own protocol, since hf-hub's light version has none.
//!
//! The hub is asked which files are large; those go to its store first, each by the address that it gives (the basic transfer of
//! Git LFS). One commit then names these and holds the small ones, so that a repository is never half changed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use ureq::Agent;

use crate::{Hub, HubError, HubId};

/// A file to upload.
#[derive(Clone, Debug)]
pub struct UploadFile {
    /// Where in the repository.
    pub path: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

const LFS: &str = "application/vnd.git-lfs+json";

impl Hub {
    /// Makes one commit of `files` to a model repository, which is created if it is not there (`private` says how). Returns the
    /// commit's address.
    ///
    /// # Errors
    /// [`HubError`]; the repository is then as it was, or created and empty.
    pub fn upload(
        &self,
        id: &HubId,
        private: bool,
        summary: &str,
        files: &[UploadFile],
    ) -> Result<String, HubError> {
        if self.offline {
            return Err(HubError::Offline { what: format!("uploading to {id}") });
        }
        let Some(token) = &self.token else {
            return Err(HubError::NoToken { repo: id.name(), endpoint: self.endpoint.clone() });
        };
        // A refusal has a body that says why.
        let agent = Agent::config_builder().http_status_as_error(false).build().into();
        let session = Session { hub: self, id, token, agent };
        session.create(private)?;
        let large = session.large(files)?;
        session.send_large(&large)?;
        session.commit(summary, files, &large)
    }
}

/// One upload.
struct Session<'a> {
    hub: &'a Hub,
    id: &'a HubId,
    token: &'a str,
    agent: Agent,
}

/// A file that goes to the hub's store, by its SHA-256.
struct Large<'a> {
    file: &'a UploadFile,
    oid: String,
}

impl Session<'_> {
    fn create(&self, private: bool) -> Result<(), HubError> {
        let body = json!({"name": self.id.repo(), "organization": self.id.owner(), "type": "model", "private": private});
        let url = format!("{}/api/repos/create", self.hub.endpoint);
        match self.post(&url, "application/json", body.to_string().as_bytes()) {
            Ok(_) | Err(HubError::Refused { status: 409, .. }) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The files that the hub wants in its store.
    fn large<'a>(&self, files: &'a [UploadFile]) -> Result<Vec<Large<'a>>, HubError> {
        #[derive(Deserialize)]
        struct Answer {
            files: Vec<Mode>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Mode {
            path: String,
            upload_mode: String,
        }
        let described = files.iter().map(|file| {
            let sample = STANDARD.encode(&file.bytes[..file.bytes.len().min(512)]);
            json!({"path": file.path, "size": file.bytes.len(), "sample": sample})
        });
        let body = json!({"files": described.collect::<Vec<_>>()}).to_string();
        let answer: Answer = self.post_for(&self.api("preupload"), "application/json", &body)?;
        let is_large = |file: &&UploadFile| {
            let mode = answer.files.iter().find(|mode| mode.path == file.path);
            mode.is_some_and(|mode| mode.upload_mode == "lfs")
        };
        let with_sum = |file: &'a UploadFile| {
            let digits = |byte: &u8| {
                [byte >> 4, byte & 15].map(|d| char::from(b"0123456789abcdef"[usize::from(d)]))
            };
            Large { file, oid: Sha256::digest(&file.bytes).iter().flat_map(digits).collect() }
        };
        Ok(files.iter().filter(is_large).map(with_sum).collect())
    }

    fn send_large(&self, files: &[Large<'_>]) -> Result<(), HubError> {
        #[derive(Deserialize)]
        struct Answer {
            objects: Vec<Object>,
        }
        #[derive(Deserialize)]
        struct Object {
            oid: String,
            #[serde(default)]
            actions: Option<Actions>,
            #[serde(default)]
            error: Option<Value>,
        }
        #[derive(Deserialize)]
        struct Actions {
            upload: Option<Action>,
            verify: Option<Action>,
        }
        #[derive(Deserialize)]
        struct Action {
            href: String,
            #[serde(default)]
            header: std::collections::BTreeMap<String, String>,
        }
        if files.is_empty() {
            return Ok(());
        }
        let objects: Vec<Value> = files
            .iter()
            .map(|large| json!({"oid": large.oid, "size": large.file.bytes.len()}))
            .collect();
        let body = json!({"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256", "objects": objects});
        let url = format!("{}/{}.git/info/lfs/objects/batch", self.hub.endpoint, self.id.name());
        let answer: Answer = self.post_for(&url, LFS, &body.to_string())?;
        for large in files {
            let object = answer.objects.iter().find(|object| object.oid == large.oid);
            let Some(object) = object.filter(|object| object.error.is_none()) else {
                let said = object.and_then(|object| object.error.as_ref());
                let reason = said.map_or(": no word on this file".to_owned(), |e| format!(": {e}"));
                return Err(self.refused(&large.file.path, 200, reason));
            };
            // No actions: the store has it already.
            let Some(Actions { upload, verify }) = &object.actions else { continue };
            if let Some(Action { href, header }) = upload {
                let mut request = self.agent.put(href);
                for (name, value) in header {
                    request = request.header(name, value);
                }
                let sent = request.send(&large.file.bytes[..]);
                self.answer(sent, &large.file.path)?;
            }
            if let Some(Action { href, .. }) = verify {
                let body = json!({"oid": large.oid, "size": large.file.bytes.len()}).to_string();
                self.post(href, LFS, body.as_bytes())?;
            }
        }
        Ok(())
    }

    fn commit(
        &self,
        summary: &str,
        files: &[UploadFile],
        large: &[Large<'_>],
    ) -> Result<String, HubError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            commit_url: String,
        }
        let header = json!({"key": "header", "value": {"summary": summary, "description": ""}});
        let lines = files.iter().map(|file| {
            match large.iter().find(|large| large.file.path == file.path) {
                Some(large) => json!({"key": "lfsFile", "value": {
                    "path": file.path, "algo": "sha256", "oid": large.oid, "size": file.bytes.len()}}),
                None => json!({"key": "file", "value": {
                    "path": file.path, "encoding": "base64", "content": STANDARD.encode(&file.bytes)}}),
            }
        });
        let lines: Vec<String> =
            std::iter::once(header).chain(lines).map(|l| l.to_string()).collect();
        let answer: Answer =
            self.post_for(&self.api("commit"), "application/x-ndjson", &lines.join("\n"))?;
        Ok(answer.commit_url)
    }

    fn api(&self, action: &str) -> String {
        let revision = self.id.revision().unwrap_or("main");
        format!("{}/api/models/{}/{action}/{revision}", self.hub.endpoint, self.id.name())
    }

    fn post_for<T: serde::de::DeserializeOwned>(
        &self,
        url: &str,
        content: &str,
        body: &str,
    ) -> Result<T, HubError> {
        let text = self.post(url, content, body.as_bytes())?;
        serde_json::from_str(&text).map_err(|e| {
            let reason = format!("an answer that is not understood ({e})");
            self.failed(reason)
        })
    }

    fn post(&self, url: &str, content: &str, body: &[u8]) -> Result<String, HubError> {
        let request = self.agent.post(url).header("Content-Type", content);
        let mut request = request.header("Authorization", format!("Bearer {}", self.token));
        if content == LFS {
            request = request.header("Accept", LFS);
        }
        self.answer(request.send(body), &self.id.name())
    }

    fn answer(
        &self,
        answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        what: &str,
    ) -> Result<String, HubError> {
        let mut answer = answer.map_err(|e| self.failed(crate::error::one_line(&e)))?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(text);
        }
        // The hub explains itself in JSON.
        let said = serde_json::from_str::<Value>(&text).ok();
        let said = said.and_then(|said| Some(said.get("error")?.as_str()?.to_owned()));
        let reason =
            said.map_or(String::new(), |said| format!(": {}", crate::error::one_line(&said)));
        Err(self.refused(what, status, reason))
    }

    fn refused(&self, what: &str, status: u16, reason: String) -> HubError {
        let (what, endpoint) = (format!("uploading {what}"), self.hub.endpoint.clone());
        HubError::Refused { what, endpoint, status, reason }
    }

    fn failed(&self, reason: String) -> HubError {
        let what = format!("uploading {}", self.id);
        HubError::Transfer { what, endpoint: self.hub.endpoint.clone(), reason }
    }
}
