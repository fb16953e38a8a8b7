//! Data sets on the Hugging Face hub: `hf://OWNER/NAME[@REVISION][:[CONFIGURATION/]SPLIT]`, or one file of them:
//! `hf://OWNER/NAME/FOLDER/FILE.zip`.
//!
//! Taken are, of the split, the first of: the Parquet files; those that the hub itself has made of the data set (its branch
//! `refs/convert/parquet`); tar files (webdataset); image files; or the one zip that there is.

use std::path::{Path, PathBuf};

use pggan_hub::{Dataset, DatasetFile, Hub, HubError, HubId};

use super::{Listing, folder, is_called, is_image_name, list_file, list_parquet, tar};
use crate::{Error, Result};

/// What the names of data sets there begin with.
const SCHEME: &str = "hf://";
/// Where the hub keeps what it has converted.
const CONVERTED: &str = "refs/convert/parquet";
/// What splits are called; the first is taken where nobody asks.
const SPLITS: [&str; 6] = ["train", "test", "validation", "valid", "val", "dev"];

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    id: HubId,
    configuration: Option<String>,
    split: Option<String>,
}

/// Brings a data set's files here, and lists their images. `progress` is told the bytes that are here, and of how many.
pub(super) fn list(source: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Listing> {
    let unreadable = |reason: String| Error::SourceUnreadable { path: source.into(), reason };
    let asked = parse(source).map_err(unreadable)?;
    let hub = Hub::from_env();
    let (dataset, chosen) = choose(&hub, &asked).map_err(|error| match error {
        Choice::None(reason) => unreadable(reason),
        Choice::Hub(error) => Error::Hub(error),
    })?;
    let files: Vec<&DatasetFile> =
        chosen.iter().filter_map(|name| dataset.files.iter().find(|f| f.name == *name)).collect();
    let paths = hub.fetch(&dataset, &files, progress).map_err(Error::Hub)?;
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let listing = match (&paths[..], &chosen[0]) {
        (paths, first) if is_called(first, "parquet") => list_parquet(paths),
        (paths, first) if is_called(first, "tar") => tar::archives(paths).and_then(tar::list),
        (paths, first) if is_image_name(first) => return folder::list(&root(paths[0], &chosen)),
        (paths, _) => list_file(paths[0]),
    };
    listing.map_err(unreadable)
}

fn parse(source: &str) -> Result<Asked, String> {
    let text = source.strip_prefix(SCHEME).unwrap_or(source);
    let (id, split) = match text.rsplit_once(':') {
        Some((id, split)) => (id, Some(split)),
        None => (text, None),
    };
    let id: HubId =
        id.parse().map_err(|()| "pass hf://OWNER/NAME[@REVISION][:SPLIT]".to_owned())?;
    let own = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (configuration, split) = match split.map(|split| split.rsplit_once('/')) {
        None => (None, None),
        Some(Some((configuration, split))) => (own(configuration), own(split)),
        Some(None) => (None, split.and_then(own)),
    };
    Ok(Asked { id, configuration, split })
}

/// Why nothing was chosen.
enum Choice {
    None(String),
    Hub(HubError),
}

impl From<HubError> for Choice {
    fn from(error: HubError) -> Self {
        Self::Hub(error)
    }
}

/// The names of the files to take, at least one, and the state of the data set that has them.
fn choose(hub: &Hub, asked: &Asked) -> Result<(Dataset, Vec<String>), Choice> {
    let dataset = hub.dataset(&asked.id, asked.id.revision().unwrap_or("main"))?;
    if let Some(file) = asked.id.file() {
        if !dataset.files.iter().any(|known| known.name == file) {
            return Err(Choice::None(format!("there is no file {file}")));
        }
        return Ok((dataset, vec![file.to_owned()]));
    }
    let is_tar = |name: &str| is_called(name, "tar");
    let is_parquet = |name: &str| is_called(name, "parquet");
    let is_image = |name: &str| is_image_name(name.rsplit('/').next().unwrap_or_default());
    let files = |dataset: &Dataset, is: &dyn Fn(&str) -> bool| -> Vec<String> {
        dataset.files.iter().map(|file| file.name.clone()).filter(|name| is(name)).collect()
    };
    let tables = files(&dataset, &is_parquet);
    if !tables.is_empty() {
        let chosen = of_split(tables, asked).and_then(|files| of_one(&files, asked));
        return Ok((dataset, chosen.map_err(Choice::None)?));
    }
    if asked.id.revision().is_none() {
        match hub.dataset(&asked.id, CONVERTED) {
            Ok(converted) if !converted.files.is_empty() => {
                let tables = files(&converted, &is_parquet);
                let chosen = of_split(tables, asked).and_then(|files| of_one(&files, asked));
                return Ok((converted, chosen.map_err(Choice::None)?));
            }
            Ok(_) | Err(HubError::NotFound { .. } | HubError::Offline { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    for is in [&is_tar as &dyn Fn(&str) -> bool, &is_image] {
        let found = files(&dataset, is);
        if !found.is_empty() {
            let chosen = of_split(found, asked).map_err(Choice::None)?;
            return Ok((dataset, chosen));
        }
    }
    let archives = files(&dataset, &|name| is_called(name, "zip"));
    match &archives[..] {
        [one] => Ok((dataset, vec![one.clone()])),
        [] => Err(Choice::None("there are no Parquet, tar, zip or image files".into())),
        [first, ..] => Err(Choice::None(format!(
            "there are {} zip files; pass one, such as {SCHEME}{}/{first}",
            archives.len(),
            asked.id
        ))),
    }
}

/// The files of the split that was asked for: all of them, if nobody asked and they are of none.
fn of_split(files: Vec<String>, asked: &Asked) -> Result<Vec<String>, String> {
    let wanted = asked.split.as_deref().unwrap_or(SPLITS[0]);
    let chosen: Vec<String> = files.iter().filter(|name| is_of(name, wanted)).cloned().collect();
    if !chosen.is_empty() {
        return Ok(chosen);
    }
    let known = SPLITS.into_iter().filter(|split| files.iter().any(|name| is_of(name, split)));
    let known: Vec<&str> = known.collect();
    if asked.split.is_none() && known.is_empty() {
        return Ok(files);
    }
    let there = if known.is_empty() { "none".into() } else { known.join(", ") };
    Err(format!("there is no split {wanted}; there is {there}"))
}

/// Whether a file is of a split: `data/train-00000-of-00005.parquet`, `default/train/0000.parquet`.
fn is_of(name: &str, split: &str) -> bool {
    let mut parts = name.rsplit('/');
    let file = parts.next().unwrap_or_default();
    let rest = file.strip_prefix(split);
    rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
        || parts.any(|folder| folder == split || folder.strip_prefix("partial-") == Some(split))
}

/// The files of the configuration that was asked for, or of the one that there is, or of `default`.
fn of_one(files: &[String], asked: &Asked) -> Result<Vec<String>, String> {
    let mut there: Vec<&str> = files.iter().map(|name| configuration(name)).collect();
    there.sort_unstable();
    there.dedup();
    let wanted = match (asked.configuration.as_deref(), &there[..]) {
        (Some(asked), _) => asked,
        (None, [one]) => one,
        (None, _) if there.contains(&"default") => "default",
        (None, _) => {
            let split = asked.split.as_deref().unwrap_or(SPLITS[0]);
            return Err(format!(
                "there are several configurations: {}; pass one, such as {SCHEME}{}:{}/{split}",
                there.join(", "),
                asked.id,
                there[0]
            ));
        }
    };
    let chosen: Vec<String> =
        files.iter().filter(|name| configuration(name) == wanted).cloned().collect();
    if chosen.is_empty() {
        return Err(format!("there is no configuration {wanted}; there is {}", there.join(", ")));
    }
    Ok(chosen)
}

/// The folder that a file is in, but for one that is called like a split.
fn configuration(name: &str) -> &str {
    let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
    let (above, last) = folder.rsplit_once('/').unwrap_or(("", folder));
    let is_split = SPLITS.iter().any(|split| is_of(&format!("{last}/"), split));
    if is_split { above } else { folder }
}

/// The folder that all `names` lie in: `path` is where the first of them is.
fn root(path: &Path, names: &[String]) -> PathBuf {
    let parts = |name: &str| name.split('/').count();
    let snapshot = path.ancestors().nth(parts(&names[0])).unwrap_or(path);
    let folder = |name: &String| name.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let mut common = folder(&names[0]).unwrap_or_default();
    // A split's own folder is not a class.
    while !common.is_empty() && !names.iter().all(|name| name.starts_with(&format!("{common}/"))) {
        common = folder(&common).unwrap_or_default();
    }
    snapshot.join(common)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Asked {
        parse(text).unwrap()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_asked_for() {
        let whole = asked("hf://o/n");
        assert_eq!((whole.id.revision(), whole.split), (None, None));
        let split = asked("hf://o/n@v2:test");
        assert_eq!((split.id.revision(), split.split.as_deref()), (Some("v2"), Some("test")));
        let both = asked("hf://o/n:big/validation");
        assert_eq!(both.configuration.as_deref(), Some("big"));
        assert_eq!(asked("hf://o/n/a/b.zip").id.file(), Some("a/b.zip"));
        for bad in ["hf://", "hf://name", "hf://o/n@", "hf://o/../n"] {
            parse(bad).unwrap_err();
        }
    }

    #[test]
    fn splits_and_configurations() {
        let choose = |files: &[&str], source: &str| {
            of_split(names(files), &asked(source)).and_then(|f| of_one(&f, &asked(source)))
        };
        let plain = ["data/test-0-of-1.parquet", "data/train-0-of-1.parquet"];
        assert_eq!(choose(&plain, "hf://o/n").unwrap(), names(&plain[1..]));
        assert_eq!(choose(&plain, "hf://o/n:test").unwrap(), names(&plain[..1]));
        let error = choose(&plain, "hf://o/n:dev").unwrap_err();
        assert_eq!(error, "there is no split dev; there is train, test");
        assert_eq!(choose(&["a.parquet", "b.parquet"], "hf://o/n").unwrap().len(), 2);

        let converted =
            ["a/partial-train/0000.parquet", "b/train/0000.parquet", "b/test/0.parquet"];
        let error = choose(&converted, "hf://o/n").unwrap_err();
        assert!(
            error.contains("configurations: a, b; pass one, such as hf://o/n:a/train"),
            "{error}"
        );
        assert_eq!(choose(&converted, "hf://o/n:b/train").unwrap(), names(&converted[1..2]));
        assert!(choose(&converted, "hf://o/n:c/train").unwrap_err().contains("there is a, b"));
        let default = ["default/train/0.parquet", "x/train/0.parquet"];
        assert_eq!(choose(&default, "hf://o/n").unwrap(), names(&default[..1]));
        // `training` is not `train`.
        assert!(!is_of("training-0.parquet", "train") && is_of("train.parquet", "train"));
    }

    #[test]
    fn classes_are_the_folders_below_what_is_common() {
        let path = Path::new("/cache/snapshots/c0/train/cat/1.png");
        let images = names(&["train/cat/1.png", "train/dog/2.png"]);
        assert_eq!(root(path, &images), Path::new("/cache/snapshots/c0/train"));
        assert_eq!(
            root(path, &names(&["train/cat/1.png", "x.png"])),
            Path::new("/cache/snapshots/c0")
        );
    }
}
