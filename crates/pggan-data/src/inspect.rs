//! A store for the eye: a table and a contact sheet.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

use crate::statistics::Moments;
use crate::store::write_atomically;
use crate::{Error, Labels, MIN_LEVEL, Result, Store};

/// Bad files that the table names.
const SHOWN: usize = 10;
/// Images across and down the contact sheet.
const GRID: u64 = 8;
/// The highest level on the contact sheet, 128x128.
const SHEET_LEVEL: u32 = 7;

/// Classes that the table names.
const CLASSES_SHOWN: usize = 20;

/// A table of what a store holds.
pub fn table(store: &Store) -> String {
    let manifest = store.manifest();
    let mut text = format!(
        "{}: {} images, {}x{}, {}, from {}\n\n  level  resolution  shards         size  kept as\n",
        store.dir().display(),
        manifest.images,
        1 << manifest.max_level,
        1 << manifest.max_level,
        match manifest.channels {
            1 => "grey",
            3 => "RGB",
            _ => "RGBA",
        },
        manifest.name,
    );
    // Writing to a string cannot fail.
    for level in &manifest.levels {
        let side = 1 << level.level;
        let size = size(store.bytes_on_disk(level.level));
        let resolution = format!("{side}x{side}");
        writeln!(
            text,
            "  {:>5}  {resolution:>10}  {:>6}  {size:>11}  {}",
            level.level,
            level.shards.len(),
            format!("{:?}", level.layout).to_lowercase()
        )
        .ok();
    }
    text.push_str(&labels(store));
    writeln!(
        text,
        "\n  {} bad files, {} enlarged, {} other files passed over",
        manifest.bad.count, manifest.enlarged, manifest.passed_over
    )
    .ok();
    for bad in manifest.bad.files.iter().take(SHOWN) {
        writeln!(text, "    {}: {}", bad.name, bad.reason).ok();
    }
    if manifest.bad.count > SHOWN as u64 {
        writeln!(text, "    … and {} more, see manifest.json", manifest.bad.count - SHOWN as u64)
            .ok();
    }
    text
}

/// The images of each class, or what the vectors are like.
fn labels(store: &Store) -> String {
    let Some(labels) = store.labels() else { return "\n  no labels\n".into() };
    let Some(classes) = labels.by_class() else {
        return format!("\n  labels of {} numbers\n", labels.width());
    };
    let names = &store.manifest().class_names;
    let mut text = format!("\n  {} classes\n  class      images\n", classes.len());
    for (class, images) in classes.iter().enumerate().take(CLASSES_SHOWN) {
        let name = names.get(class).map_or("", String::as_str);
        text.push_str(format!("  {class:>5}  {:>10}  {name}", images.len()).trim_end());
        text.push('\n');
    }
    if classes.len() > CLASSES_SHOWN {
        writeln!(text, "      …").ok();
    }
    text
}

/// Means and deviations, a line a level.
pub fn statistics(moments: &[Moments]) -> String {
    let list = |values: &[f64]| {
        values.iter().map(|value| format!("{value:7.2}")).collect::<Vec<_>>().join(" ")
    };
    let mut text = "\n  level  mean of each channel, of 255; standard deviation\n".to_owned();
    for Moments { level, mean, std } in moments {
        writeln!(text, "  {level:>5}  {};  {}", list(mean), list(std)).ok();
    }
    text
}

/// Groups of images that look the same: how many, and the first of them by name.
pub fn duplicates(store: &Store, groups: &[Vec<u64>]) -> Result<String> {
    let images: usize = groups.iter().map(Vec::len).sum();
    let mut text = format!(
        "\n  {images} images look like another, in {} groups; without the repeats there are {}\n",
        groups.len(),
        store.images() - (images - groups.len()) as u64
    );
    let names = store.names()?;
    for group in groups.iter().take(SHOWN) {
        let group: Vec<&str> = group
            .iter()
            .filter_map(|&index| names.get(index as usize).map(String::as_str))
            .collect();
        writeln!(text, "    {}", group.join(", ")).ok();
    }
    if groups.len() > SHOWN {
        writeln!(text, "    … and {} more groups", groups.len() - SHOWN).ok();
    }
    Ok(text)
}

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    if power == 0 {
        return format!("{bytes} B");
    }
    format!("{:.1} {}", bytes as f64 / (1_u64 << (10 * power)) as f64, units[power as usize])
}

/// Writes a PNG with up to 64 images at 128x128 or below: with classes a row for each of the first 8, else
/// evenly spread over the store. Transparent ones are on white.
pub fn contact_sheet(store: &Store, path: &Path) -> Result<()> {
    let level = store.max_level().min(SHEET_LEVEL);
    let side = 1_u32 << level;
    let rows = sheet_rows(store);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let mut sheet = RgbImage::from_pixel(columns * side, rows.len() as u32 * side, Rgb([255; 3]));
    for (row, images) in rows.iter().enumerate() {
        for (column, &index) in images.iter().enumerate() {
            let planes = store.image(level, index)?;
            let (left, top) = (column as u32 * side, row as u32 * side);
            let pixels = planes.len() / store.channels();
            for i in 0..pixels {
                let pixel: Vec<u8> = planes[i..].iter().copied().step_by(pixels).collect();
                let (x, y) = (left + i as u32 % side, top + i as u32 / side);
                sheet.put_pixel(x, y, Rgb(on_white(&pixel)));
            }
        }
    }
    let mut png = Cursor::new(Vec::new());
    sheet.write_to(&mut png, ImageFormat::Png).map_err(|error| Error::Io {
        action: "encode",
        path: path.to_owned(),
        source: std::io::Error::other(error),
    })?;
    write_atomically(path, png.get_ref())
}

/// Which images are shown where.
fn sheet_rows(store: &Store) -> Vec<Vec<u64>> {
    let spread = |of: u64, shown: u64| (0..shown).map(move |place| place * of / shown);
    if let Some(classes) = store.labels().and_then(Labels::by_class) {
        let rows = classes.iter().filter(|images| !images.is_empty()).take(GRID as usize);
        return rows
            .map(|images| {
                let of = images.len() as u64;
                spread(of, of.min(GRID)).map(|place| images[place as usize]).collect()
            })
            .collect();
    }
    let shown: Vec<u64> = spread(store.images(), store.images().min(GRID * GRID)).collect();
    shown.chunks(GRID as usize).map(<[u64]>::to_vec).collect()
}

fn on_white(pixel: &[u8]) -> [u8; 3] {
    match *pixel {
        [r, g, b, a] => [r, g, b].map(|c| 255 - ((255 - c as u32) * a as u32 / 255) as u8),
        [r, g, b] => [r, g, b],
        _ => [pixel[0]; 3],
    }
}

const _: () = assert!(MIN_LEVEL <= SHEET_LEVEL, "every store has a level for the sheet");
