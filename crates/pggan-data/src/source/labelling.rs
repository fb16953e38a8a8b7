//! Where labels come from: stylegan's `dataset.json`, the folders that images lie in, or the container.

use serde::Deserialize;

use super::{Entry, Listing};
use crate::labels::Label;

/// Where a source's labels are taken from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LabelsFrom {
    /// `dataset.json` if there is one with labels, else what the format itself says (CIFAR, …), else none.
    #[default]
    Auto,
    /// Nowhere: a data set without labels.
    None,
    /// The folder at the top that an image lies in: folders in the order of their names are classes 0, 1, …
    Folders,
    /// `dataset.json` at the top, as stylegan2 and 3 write it: `{"labels": [["00000/img00000000.png", 6], …]}`,
    /// with a class or a vector of numbers for each image.
    #[value(name = "dataset.json")]
    DatasetJson,
}

#[derive(Deserialize)]
struct DatasetJson {
    labels: Option<Vec<(String, Value)>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Class(u32),
    Vector(Vec<f32>),
}

/// Gives the entries of a listing the labels that are asked for. The error is the reason why it cannot.
pub(super) fn label(listing: &mut Listing, from: LabelsFrom) -> Result<(), String> {
    let json = listing.dataset_json.take();
    match from {
        LabelsFrom::None => clear(listing),
        LabelsFrom::Folders => {
            clear(listing);
            listing.class_names = by_folder(&mut listing.entries)?;
        }
        LabelsFrom::Auto => {
            if let Some(labels) = json.as_deref().map(parse).transpose()?.flatten() {
                clear(listing);
                assign(&mut listing.entries, labels)?;
            }
        }
        LabelsFrom::DatasetJson => {
            let json = json.ok_or("it has no dataset.json; --labels none does without labels")?;
            let labels = parse(&json)?.ok_or("its dataset.json has no labels")?;
            clear(listing);
            assign(&mut listing.entries, labels)?;
        }
    }
    Ok(())
}

fn clear(listing: &mut Listing) {
    listing.entries.iter_mut().for_each(|entry| entry.label = None);
    listing.class_names.clear();
    listing.classes = 0;
}

fn parse(json: &[u8]) -> Result<Option<Vec<(String, Value)>>, String> {
    let read: DatasetJson = serde_json::from_slice(json)
        .map_err(|error| format!("its dataset.json: {error}; --labels none does without it"))?;
    Ok(read.labels)
}

/// A class or a vector in a file of its own.
pub(super) fn parse_one(json: &[u8]) -> Option<Label> {
    match serde_json::from_slice(json).ok()? {
        Value::Class(class) => Some(Label::Class(class)),
        Value::Vector(vector) => {
            vector.iter().all(|value| value.is_finite()).then_some(Label::Vector(vector))
        }
    }
}

/// Labels by name; the last of equal names counts, as in Python.
fn assign(entries: &mut [Entry], labels: Vec<(String, Value)>) -> Result<(), String> {
    let mut given = 0_usize;
    for (name, value) in labels {
        let name = name.replace('\\', "/");
        let Ok(place) = entries.binary_search_by(|e| e.name.as_bytes().cmp(name.as_bytes())) else {
            continue;
        };
        entries[place].label = Some(match value {
            Value::Class(class) => Label::Class(class),
            Value::Vector(vector) if vector.iter().all(|v| v.is_finite()) => Label::Vector(vector),
            Value::Vector(_) => return Err(format!("its dataset.json: {name}: not finite")),
        });
        given += 1;
    }
    if given == 0 && !entries.is_empty() {
        return Err(
            "its dataset.json names none of its images; --labels none does without it".into()
        );
    }
    Ok(())
}

/// Classes in the order of the folders' names, which are returned. Images beside the folders have none.
fn by_folder(entries: &mut [Entry]) -> Result<Vec<String>, String> {
    let mut folders: Vec<String> =
        entries.iter().filter_map(|e| Some(e.name.split_once('/')?.0.to_owned())).collect();
    folders.sort_unstable();
    folders.dedup();
    if folders.is_empty() && !entries.is_empty() {
        return Err("no image lies in a folder, so --labels folders has no classes".into());
    }
    for entry in entries {
        let folder = entry.name.split_once('/').map(|(folder, _)| folder);
        let class = folder.and_then(|f| folders.binary_search_by(|name| name.as_str().cmp(f)).ok());
        entry.label = class.map(|class| Label::Class(class as u32));
    }
    Ok(folders)
}
