//! CIFAR-10 and CIFAR-100: the binary and the Python version, packed or unpacked.
//!
//! Of the whole set the training images are taken, in their order, with the fine labels. The Python
//! version's pickles are never executed: see [`scan`].

use std::path::Path;

use super::blob::Blob;
use super::pixels::{Order, Pixels};
use super::{Entry, Listing, is_called, tar};
use crate::labels::Label;

/// Bytes of a 32x32 RGB image.
const IMAGE: u64 = 3072;
/// A pickle above this many bytes is none of CIFAR's, the largest of which has 154 MB.
const MAX_PICKLE: u64 = 512 << 20;

/// A file of the set: its name, and where it lies.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    blob: Blob,
    offset: u64,
    length: u64,
}

/// Whether files of these names, without their folders, are a CIFAR set.
pub(super) fn is_cifar<'a>(names: impl IntoIterator<Item = &'a str>) -> bool {
    let is = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or_default();
        is_batch(name) || name == "train.bin" || name == "fine_label_names.txt"
    };
    names.into_iter().any(is)
}

/// `data_batch_1` or `data_batch_1.bin`.
fn is_batch(name: &str) -> bool {
    let number = name.strip_prefix("data_batch_").map(|rest| rest.trim_end_matches(".bin"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// Lists the images in the files at `paths`.
pub(super) fn list_files(paths: &[&Path]) -> Result<Listing, String> {
    let mut members = Vec::new();
    for path in paths {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let blob = Blob::open(path).map_err(|error| format!("{name}: {error}"))?;
        let length = blob.len();
        members.push(Member { name, blob, offset: 0, length });
    }
    list(members)
}

/// Lists the images in a tar archive.
pub(super) fn list_archive(blob: &Blob) -> Result<Listing, String> {
    let members = tar::members(blob)?.into_iter().map(|(name, offset, length)| Member {
        name: name.rsplit('/').next().unwrap_or_default().to_owned(),
        blob: blob.clone(),
        offset,
        length,
    });
    list(members.collect())
}

fn list(mut members: Vec<Member>) -> Result<Listing, String> {
    members.sort_by(|a, b| a.name.cmp(&b.name));
    let is_train = |name: &str| is_batch(name) || name == "train" || name == "train.bin";
    let text = |name: &str| {
        let member = members.iter().find(|m| m.name == name && m.length < 1 << 16)?;
        let mut bytes = Vec::new();
        member.blob.read(member.offset, member.length, &mut bytes).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        Some(text.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect())
    };
    let class_names: Option<Vec<String>> =
        text("batches.meta.txt").or_else(|| text("fine_label_names.txt"));
    let mut whole: Vec<&Member> = members.iter().filter(|m| is_train(&m.name)).collect();
    if whole.is_empty() {
        whole = members.iter().filter(|m| is_called(&m.name, "bin")).collect();
    }
    let (mut entries, mut places, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
    for member in whole {
        let of = |reason: String| format!("{}: {reason}", member.name);
        let records = if is_called(&member.name, "bin") {
            binary(member).map_err(of)?
        } else {
            pickled(member).map_err(of)?
        };
        let stem = member.name.trim_end_matches(".bin");
        for (number, (offset, class)) in records.into_iter().enumerate() {
            let mut entry = Entry::new(format!("{stem}/{number:05}"), IMAGE);
            entry.label = Some(Label::Class(class));
            entries.push(entry);
            places.push((blobs.len(), offset));
        }
        blobs.push(member.blob.clone());
    }
    let pixels = Pixels {
        blobs,
        places,
        width: 32,
        height: 32,
        channels: 3,
        order: Order::Planes,
        margin: 0,
    };
    let class_names = class_names.unwrap_or_default();
    Ok(Listing { class_names, ..Listing::of(entries, Box::new(pixels)) })
}

/// Records of a label, or of a coarse and a fine one, and an image: the offset and the class of each.
fn binary(member: &Member) -> Result<Vec<(u64, u32)>, String> {
    let labels = [1, 2].into_iter().find(|l| member.length.is_multiple_of(IMAGE + l));
    // A length that fits both has a multiple of 3073 x 3074 bytes, which is no CIFAR file.
    let Some(labels) = labels.filter(|_| member.length > 0) else {
        let length = member.length;
        return Err(format!(
            "{length} bytes are not records of 3073 (CIFAR-10) or 3074 (CIFAR-100)"
        ));
    };
    let mut records = Vec::new();
    let mut byte = Vec::new();
    for record in 0..member.length / (IMAGE + labels) {
        let start = member.offset + record * (IMAGE + labels);
        byte.clear();
        member.blob.read(start + labels - 1, 1, &mut byte).map_err(|error| error.to_string())?;
        records.push((start + labels, byte[0].into()));
    }
    Ok(records)
}

/// The same from a pickle, whose pixels are in one block.
fn pickled(member: &Member) -> Result<Vec<(u64, u32)>, String> {
    if member.length > MAX_PICKLE {
        return Err(format!("{} bytes are too many for a CIFAR batch", member.length));
    }
    let mut bytes = Vec::new();
    member
        .blob
        .read(member.offset, member.length, &mut bytes)
        .map_err(|error| error.to_string())?;
    let Scan { pixels, classes } = scan(&bytes)?;
    if pixels.len() as u64 != IMAGE * classes.len() as u64 {
        return Err(format!("{} bytes of pixels for {} labels", pixels.len(), classes.len()));
    }
    let first = member.offset + pixels.start as u64;
    let offsets = (0..).map(|number| first + number * IMAGE);
    Ok(offsets.zip(classes).collect())
}

/// What is wanted of a batch's pickle.
#[derive(Debug, PartialEq)]
struct Scan {
    /// Where the pixels are.
    pixels: std::ops::Range<usize>,
    classes: Vec<u32>,
}

/// Finds labels and pixels in a batch without running it.
///
/// A pickle is a program; this reads its instructions one by one and carries out none. What follows the
/// string `labels` (or `fine_labels`), up to the next string, are the labels; the long string after `data`
/// holds the pixels. Only instructions that such a batch consists of are known: all else is refused.
fn scan(pickle: &[u8]) -> Result<Scan, String> {
    let mut rest = pickle;
    let mut classes = None;
    let mut pixels = None;
    let mut key = String::new();
    let cut = || "the pickle is cut off".to_owned();
    loop {
        let (&code, behind) = rest.split_first().ok_or_else(cut)?;
        rest = behind;
        let take = |rest: &mut &'_ [u8], count: usize| -> Result<std::ops::Range<usize>, String> {
            *rest = rest.get(count..).ok_or_else(cut)?;
            let end = pickle.len() - rest.len();
            Ok(end - count..end)
        };
        let number = |rest: &mut &'_ [u8], count: usize| -> Result<u32, String> {
            let bytes = &pickle[take(rest, count)?];
            Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)))
        };
        match code {
            // Marks, empty containers, constants, and what puts them together.
            b'('
            | b'}'
            | b']'
            | b')'
            | b'N'
            | b't'
            | b'b'
            | b'e'
            | b'a'
            | b's'
            | b'u'
            | b'R'
            | 0x85..=0x89 => {}
            // Protocol, places in the memo.
            0x80 | b'q' | b'h' => {
                take(&mut rest, 1)?;
            }
            b'r' | b'j' => {
                take(&mut rest, 4)?;
            }
            // The name of a function, in two lines. It is not called.
            b'c' => {
                for _ in 0..2 {
                    let line = rest.iter().position(|&byte| byte == b'\n').ok_or_else(cut)?;
                    take(&mut rest, line + 1)?;
                }
            }
            b'K' | b'M' | b'J' => {
                let value = number(
                    &mut rest,
                    match code {
                        b'K' => 1,
                        b'M' => 2,
                        _ => 4,
                    },
                )?;
                if matches!(&*key, "labels" | "fine_labels") {
                    classes.get_or_insert_with(Vec::new).push(value);
                }
            }
            b'U' | b'T' | b'X' | b'C' | b'B' => {
                let wide = if matches!(code, b'U' | b'C') { 1 } else { 4 };
                let length = number(&mut rest, wide)? as usize;
                let place = take(&mut rest, length)?;
                if key == "data" && length as u64 >= IMAGE {
                    pixels = Some(place);
                    key.clear();
                } else if matches!(&pickle[place.clone()], b"data" | b"labels" | b"fine_labels") {
                    key = String::from_utf8_lossy(&pickle[place]).into_owned();
                } else if key != "data" {
                    key.clear();
                }
            }
            b'.' => break,
            code => {
                return Err(format!("an instruction that CIFAR batches do not have ({code:#04x})"));
            }
        }
    }
    match (pixels, classes) {
        (Some(pixels), Some(classes)) => Ok(Scan { pixels, classes }),
        _ => Err("no labels and pixels of a CIFAR batch in it".into()),
    }
}
