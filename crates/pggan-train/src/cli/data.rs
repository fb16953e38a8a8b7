//! The data set that a run is about.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use pggan_data::{PrepareOptions, Store};
use pggan_train::config::{Config, Settings};
use tracing::info;
use tracing_indicatif::span_ext::IndicatifSpanExt as _;

use super::bar;

/// The data set's folder; the default one is prepared if it has not been yet.
pub(super) fn folder(named: Option<&Path>, recorded: Option<&Config>) -> Result<PathBuf> {
    if let Some(named) = named {
        return Ok(named.to_owned());
    }
    if let Some(recorded) = recorded.filter(|c| !c.data.path.is_empty()) {
        return Ok(PathBuf::from(&recorded.data.path));
    }
    let source = super::root().join("datasets").join("fluent-emoji").join("images");
    if !source.exists() {
        bail!(
            "{}: the default data set is not here; start from the project's folder, or name a data set \
             with --data DIR",
            source.display()
        );
    }
    let dest = super::root().join("datasets").join("prepared").join("fluent-emoji");
    let span = bar("{msg} {bar:30} {pos}/{len} images, {per_sec}, {eta} left");
    span.pb_set_message("preparing the default data set");
    let report = pggan_data::prepare(&PrepareOptions::new(source, &dest), |progress| {
        if let pggan_data::Progress::Images { done, total, .. } = progress {
            span.pb_set_length(total);
            span.pb_set_position(done);
        }
    })?;
    drop(span);
    if report.outcome != pggan_data::Outcome::AlreadyThere {
        info!("prepared {} images in {}", report.images, dest.display());
    }
    Ok(dest)
}

/// What the data decide where nothing else is said, resolution, channels and labels; and which data they are.
pub(super) fn fit(settings: &mut Settings, store: &Store, data: &Path) -> Result<()> {
    if !settings.has("model.resolution") {
        settings.set("model.resolution", (1i64 << store.max_level()).into())?;
    }
    if !settings.has("model.channels") {
        settings.set("model.channels", i64::try_from(store.channels())?.into())?;
    }
    if !settings.has("model.label_size") {
        let labels = store.labels().map_or(0, pggan_data::Labels::width);
        settings.set("model.label_size", i64::try_from(labels)?.into())?;
    }
    let path = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
    settings.set("data.path", path.to_string_lossy().into_owned().into())?;
    let manifest = data.join("manifest.json");
    let bytes = std::fs::read(&manifest).with_context(|| manifest.display().to_string())?;
    settings.set("data.content", blake3::hash(&bytes).to_hex().to_string().into())?;
    Ok(())
}

/// A person may well name the folder of the images themselves.
pub(super) fn explain(error: pggan_data::Error, data: &Path) -> anyhow::Error {
    let prepared = data.join("manifest.json").exists();
    let error = anyhow::Error::from(error);
    if prepared || !data.exists() {
        return error;
    }
    error.context(format!(
        "{} is not a prepared data set; make one with `cargo xtask prepare-dataset --source {} --dest DIR`",
        data.display(),
        data.display()
    ))
}

/// The name that runs on it have.
pub(super) fn name(data: &Path) -> String {
    let name = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let name = name.file_name().map_or("data".into(), |n| n.to_string_lossy().into_owned());
    name.chars().map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' }).collect()
}
