//! Parquet files with a column of encoded images, as Hugging Face keeps image sets: a file, or a folder of
//! `train-00000-of-00005.parquet`, …, of which those of `train` are taken where there are several splits.
//!
//! The images are the bytes of `image: struct<bytes, path>`, or of a plain column of that name. Labels are
//! what the file's own notes call a `ClassLabel`, or a column called `label`.
//!
//! Memory: a reader holds the page that it is at, which is as large as whoever wrote the file made it, but not
//! as large as a bomb is. Of the library the values of a page are taken; what it takes on trust is read here:
//! see [`footer`] and [`pages`].

mod footer;
mod pages;
mod thrift;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ::parquet::basic::Type;
use ::parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use ::parquet::data_type::{ByteArray, ByteArrayType, DataType};
use ::parquet::schema::types::ColumnDescPtr;
use serde_json::Value;

use self::footer::{Chunk, Footer};
use super::{Container, Entry, Listing, ReadEntry, printable};
use crate::Result;
use crate::decode::Form;
use crate::labels::Label;

/// Columns that hold images and labels where nothing says so.
const IMAGES: [&str; 5] = ["image.bytes", "img.bytes", "image", "img", "image_bytes"];
const LABELS: [&str; 4] = ["label", "labels", "fine_label", "class"];

/// Files of images.
#[derive(Debug, Default)]
struct Parquet {
    /// Each with its column of images.
    files: Vec<(PathBuf, ColumnDescPtr)>,
    /// The groups of rows: the file of each, and where in it its images are.
    groups: Vec<(usize, Chunk)>,
    /// Where each image lies: its group and its row in it.
    places: Vec<(usize, u32)>,
}

/// Those of the split `train`, if there are several splits.
pub(super) fn training<'a>(paths: &[&'a Path]) -> Vec<&'a Path> {
    let is_train = |path: &&&Path| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("train"))
    };
    let train: Vec<&Path> = paths.iter().filter(is_train).copied().collect();
    if train.is_empty() { paths.to_vec() } else { train }
}

/// Lists the images of some files, one behind the other.
pub(super) fn list(paths: &[&Path]) -> Result<Listing, String> {
    let mut parquet = Parquet::default();
    let (mut entries, mut class_names) = (Vec::new(), Vec::new());
    for path in paths {
        let name = printable(&path.file_name().unwrap_or_default().to_string_lossy());
        class_names = guarded(|| add(path, &name, &mut parquet, &mut entries))
            .map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(Listing { class_names, ..Listing::of(entries, Box::new(parquet)) })
}

/// Adds the images of a file; returns what their classes are called.
fn add(
    path: &Path,
    name: &str,
    parquet: &mut Parquet,
    entries: &mut Vec<Entry>,
) -> Result<Vec<String>, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let footer = Footer::read(&mut file)?;
    let notes = Notes::read(&footer);
    let column = find(&footer, notes.images.as_deref(), &IMAGES, &[Type::BYTE_ARRAY])
        .ok_or("no column of images, such as `image.bytes`")?;
    let integers = [Type::INT64, Type::INT32];
    let label = find(&footer, notes.label.as_deref(), &LABELS, &integers);
    let label = label.map(|label| (label, footer.columns.column(label)));
    let mut most = file.metadata().map_err(|error| error.to_string())?.len();
    for group in &footer.groups {
        let rows = u32::try_from(group.rows).map_err(|_| "a count out of range")?;
        let size = group.chunks[column].bytes_unpacked.max(1) as u64;
        // An image takes more than a byte, and so does its length.
        most = most.checked_sub(rows.into()).ok_or("more images than bytes")?;
        let classes = match &label {
            Some((label, about)) => classes(path, about, group.chunks[*label], rows as usize)?,
            None => vec![None; rows as usize],
        };
        for (row, class) in (0..rows).zip(classes) {
            let place = entries.len();
            let mut entry = Entry::new(format!("{name}/{place:08}"), size / u64::from(rows));
            entry.label = class.map(Label::Class);
            entries.push(entry);
            parquet.places.push((parquet.groups.len(), row));
        }
        parquet.groups.push((parquet.files.len(), group.chunks[column]));
    }
    parquet.files.push((path.to_owned(), footer.columns.column(column)));
    Ok(notes.class_names)
}

/// The library takes some lies of a file for mistakes of its caller.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err("damaged".into()))
}

/// The values of a column in a group, from the first one on.
fn values(path: &Path, column: &ColumnDescPtr, chunk: Chunk) -> Result<ColumnReader, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    pages::values(file, column.clone(), chunk).map_err(|error| error.to_string())
}

/// What Hugging Face notes about the columns.
#[derive(Default)]
struct Notes {
    images: Option<String>,
    label: Option<String>,
    class_names: Vec<String>,
}

impl Notes {
    fn read(footer: &Footer) -> Self {
        let mut notes = Self::default();
        let json =
            footer.notes.as_ref().and_then(|notes| serde_json::from_str::<Value>(notes).ok());
        let features = json.as_ref().and_then(|json| json["info"]["features"].as_object());
        for (name, feature) in features.into_iter().flatten() {
            match feature["_type"].as_str() {
                Some("Image") => notes.images = Some(format!("{name}.bytes")),
                Some("ClassLabel") if notes.label.is_none() => {
                    notes.label = Some(name.clone());
                    let names = feature["names"].as_array().into_iter().flatten();
                    notes.class_names = names.filter_map(Value::as_str).map(printable).collect();
                }
                _ => {}
            }
        }
        notes
    }
}

/// The column that is called `noted`, or like the first of `names` that there is, and is of one of `types`.
fn find(footer: &Footer, noted: Option<&str>, names: &[&str], types: &[Type]) -> Option<usize> {
    let columns = footer.columns.columns();
    let place = |name: &str| {
        columns.iter().position(|column| {
            column.path().string() == name
                && column.max_rep_level() == 0
                && types.contains(&column.physical_type())
        })
    };
    noted.and_then(place).or_else(|| names.iter().find_map(|name| place(name)))
}

/// The classes of a row group; none where a row has none, or a negative one, as test sets have it.
fn classes(
    path: &Path,
    column: &ColumnDescPtr,
    chunk: Chunk,
    rows: usize,
) -> Result<Vec<Option<u32>>, String> {
    let top = column.max_def_level();
    match values(path, column, chunk)? {
        ColumnReader::Int64ColumnReader(reader) => {
            numbers(reader, top, rows, |class| u32::try_from(class).ok())
        }
        ColumnReader::Int32ColumnReader(reader) => {
            numbers(reader, top, rows, |class| u32::try_from(class).ok())
        }
        _ => Err("labels that are no whole numbers".into()),
    }
}

fn numbers<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    top: i16,
    rows: usize,
    class: impl Fn(T::T) -> Option<u32>,
) -> Result<Vec<Option<u32>>, String> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let (read, _, _) = reader
        .read_records(rows, Some(&mut levels), None, &mut values)
        .map_err(|error| error.to_string())?;
    if read != rows {
        return Err(format!("{read} labels for {rows} images"));
    }
    let mut values = values.into_iter();
    let value = |row: usize| {
        let there = top == 0 || levels.get(row) == Some(&top);
        if there { values.next().and_then(&class) } else { None }
    };
    Ok((0..rows).map(value).collect())
}

impl Container for Parquet {
    fn reader(&self) -> Result<Box<dyn ReadEntry + '_>> {
        Ok(Box::new(ParquetReader { parquet: self, open: None, damaged: None }))
    }
}

struct ParquetReader<'a> {
    parquet: &'a Parquet,
    open: Option<Group>,
    /// The group and the row from which on nothing can be read, and why.
    damaged: Option<(usize, u32, String)>,
}

/// A row group that is being read.
struct Group {
    number: usize,
    /// The row that comes next.
    next: u32,
    images: ColumnReaderImpl<ByteArrayType>,
}

impl std::fmt::Debug for ParquetReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParquetReader").finish_non_exhaustive()
    }
}

impl ParquetReader<'_> {
    /// The image at a place. Rows come one behind the other; to go back is to begin again.
    fn image(&mut self, group: usize, row: u32) -> Result<ByteArray, String> {
        let error = |error: ::parquet::errors::ParquetError| error.to_string();
        let mut open = match self.open.take() {
            Some(open) if open.number == group && open.next <= row => open,
            _ => {
                let (file, chunk) = self.parquet.groups[group];
                let (path, column) = &self.parquet.files[file];
                match values(path, column, chunk)? {
                    ColumnReader::ByteArrayColumnReader(images) => {
                        Group { number: group, next: 0, images }
                    }
                    _ => return Err("images that are no bytes".into()),
                }
            }
        };
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        open.images.skip_records((row - open.next) as usize).map_err(error)?;
        open.images.read_records(1, Some(&mut levels), None, &mut values).map_err(error)?;
        open.next = row + 1;
        self.open = Some(open);
        values.pop().ok_or_else(|| "the row has no image".into())
    }
}

impl ReadEntry for ParquetReader<'_> {
    fn read(&mut self, index: usize, limit: u64, bytes: &mut Vec<u8>) -> Result<Form, String> {
        let (group, row) = self.parquet.places[index];
        if let Some((damaged, from, reason)) = &self.damaged
            && *damaged == group
            && *from <= row
        {
            return Err(reason.clone());
        }
        let image = guarded(|| self.image(group, row)).inspect_err(|reason| {
            // Each row would be looked for from the beginning of the group.
            if self.open.is_none() {
                self.damaged = Some((group, row, reason.clone()));
            }
        })?;
        let image = image.data();
        bytes.extend_from_slice(&image[..image.len().min(limit as usize)]);
        Ok(Form::Encoded)
    }
}
