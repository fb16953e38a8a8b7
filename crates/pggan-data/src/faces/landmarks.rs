//! Five points of each face, from a table: a row has the name of an image and ten numbers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::Context;
use crate::source::Source;
use crate::{Error, Result};

/// Left eye, right eye, nose, left and right corner of the mouth, x and y in pixels. Left is the viewer's left.
pub(super) type Points = [[f32; 2]; 5];

/// A table above this size is not read; CelebA's has 13 MB.
const MAX_BYTES: u64 = 1 << 30;

/// The rows of a table of landmarks.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: BTreeMap<String, Points>,
}

impl Table {
    /// Reads CelebA's `list_landmarks_celeba.txt` or any CSV: name, then x and y of the five points, with commas,
    /// semicolons or blanks between them. A number of rows and a line of titles may stand above.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::Landmarks { path: path.to_owned(), reason };
        let mut text = String::new();
        let file = File::open(path).context("read", path)?;
        if path.is_dir() {
            return Err(wrong("a folder, not a table".into()));
        }
        match file.take(MAX_BYTES).read_to_string(&mut text) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(wrong("not a text file".into()));
            }
            result => result.context("read", path)?,
        };
        Self::parse(&text).map_err(wrong)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut rows = BTreeMap::new();
        let mut stated: Option<u64> = None;
        let text = text.trim_start_matches('\u{feff}');
        for (number, line) in (1..).zip(text.lines()) {
            let fields = fields(line);
            // Titles, or how many rows there are.
            let above = rows.is_empty() && number <= 2;
            match fields[..] {
                [] => continue,
                [count] if above && stated.is_none() && count.parse::<u64>().is_ok() => {
                    stated = count.parse().ok();
                    continue;
                }
                _ if above && fields.iter().skip(1).all(|field| field.parse::<f32>().is_err()) => {
                    continue;
                }
                _ => {}
            }
            let points = points(&fields[1..]).ok_or_else(|| {
                format!("line {number}: not a name and 10 numbers (x and y of eyes, nose, corners of the mouth)")
            })?;
            if rows.insert(fields[0].to_owned(), points).is_some() {
                return Err(format!("line {number}: {} has a row already", fields[0]));
            }
        }
        if rows.is_empty() {
            return Err("it has no landmarks".into());
        }
        if let Some(stated) = stated
            && stated != rows.len() as u64
        {
            return Err(format!("it says {stated} rows, and has {}", rows.len()));
        }
        let mirrored = rows.values().filter(|points| is_mirrored(points)).count();
        if 2 * mirrored > rows.len() {
            return Err(format!(
                "left and right are exchanged in {mirrored} of {} rows; left is the viewer's left",
                rows.len()
            ));
        }
        Ok(Self { rows })
    }

    /// The points of each image of a source: by its name, else by the last part of its name.
    pub(crate) fn of(&self, source: &Source, path: &Path) -> Result<Vec<Option<Points>>> {
        let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
        for entry in source.entries() {
            if self.rows.contains_key(&entry.name) {
                taken.insert(&entry.name, &entry.name);
            }
        }
        let points = source.entries().iter().map(|entry| {
            let last = entry.name.rsplit('/').next().unwrap_or_default();
            match (self.rows.get(&entry.name), self.rows.get(last)) {
                (Some(points), _) => Ok(Some(*points)),
                (None, Some(points)) => match taken.insert(last, &entry.name) {
                    None => Ok(Some(*points)),
                    Some(other) => {
                        let reason = format!("{last} may be {other} or {}", entry.name);
                        Err(Error::Landmarks { path: path.to_owned(), reason })
                    }
                },
                (None, None) => Ok(None),
            }
        });
        points.collect()
    }
}

fn fields(line: &str) -> Vec<&str> {
    let line = line.trim();
    let separator = [',', ';', '\t'].into_iter().find(|&separator| line.contains(separator));
    match separator {
        Some(separator) => line.split(separator).map(|f| f.trim().trim_matches('"')).collect(),
        None => line.split_whitespace().collect(),
    }
}

fn points(fields: &[&str]) -> Option<Points> {
    let numbers: Result<Vec<f32>, _> = fields.iter().map(|field| field.parse()).collect();
    let numbers: [f32; 10] = numbers.ok()?.try_into().ok()?;
    Some(std::array::from_fn(|i| [numbers[2 * i], numbers[2 * i + 1]]))
}

/// Whether the way from the left to the right eye and that down to the mouth turn the wrong way round.
fn is_mirrored([left, right, _, mouth_left, mouth_right]: &Points) -> bool {
    let across = [right[0] - left[0], right[1] - left[1]];
    let middle = |a: &[f32; 2], b: &[f32; 2], i: usize| f32::midpoint(a[i], b[i]);
    let down = [0, 1].map(|i| middle(mouth_left, mouth_right, i) - middle(left, right, i));
    across[0] * down[1] - across[1] * down[0] < 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACE: &str = "10 20 30 20 20 30 12 40 28 40";
    const POINTS: Points = [[10., 20.], [30., 20.], [20., 30.], [12., 40.], [28., 40.]];

    #[test]
    fn tables() {
        let commas = FACE.replace(' ', ",");
        for (text, names) in [
            (
                format!("2\nlefteye_x lefteye_y\na.jpg {FACE}\n\nb.jpg  {FACE}\n"),
                vec!["a.jpg", "b.jpg"],
            ),
            (
                format!("\u{feff}image_id,lefteye_x,lefteye_y\r\na b.jpg,{commas}\r\n"),
                vec!["a b.jpg"],
            ),
            (format!("\"x/1.png\";{}", FACE.replace(' ', " ; ")), vec!["x/1.png"]),
            (format!("1.png\t{}", FACE.replace(' ', "\t")), vec!["1.png"]),
        ] {
            let table = Table::parse(&text).unwrap();
            assert_eq!(table.rows.keys().collect::<Vec<_>>(), names);
            assert!(table.rows.values().all(|points| *points == POINTS));
        }
    }

    #[test]
    fn what_is_no_table_says_why() {
        let mirrored = "a 30 20 10 20 20 30 28 40 12 40";
        for (text, words) in [
            (String::new(), "no landmarks"),
            ("image_id,lefteye_x\n".into(), "no landmarks"),
            (format!("3\na {FACE}"), "says 3 rows, and has 1"),
            (format!("a {FACE}\na {FACE}"), "line 2: a has a row already"),
            (format!("a {FACE} 1"), "line 1: not a name and 10 numbers"),
            (format!("a {FACE}\nb 1 2 3"), "line 2: not a name and 10 numbers"),
            (format!("a {FACE}\nb {}", FACE.replace("28", "x")), "line 2: not a name"),
            (format!("a {FACE}\nb\n"), "line 2: not a name"),
            (mirrored.into(), "left and right are exchanged in 1 of 1 rows"),
        ] {
            let error = Table::parse(&text).unwrap_err();
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }
}
