//! A store for the eye: a table and a contact sheet.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, RgbImage};

use crate::pyramid::level_bytes;
use crate::store::write_atomically;
use crate::{Error, MIN_LEVEL, Result, Store};

/// Bad files that the table names.
const SHOWN: usize = 10;
/// Images across and down the contact sheet.
const GRID: u64 = 8;
/// The highest level on the contact sheet, 128x128.
const SHEET_LEVEL: u32 = 7;

/// A table of what a store holds.
pub fn table(store: &Store) -> String {
    let manifest = store.manifest();
    let mut text = format!(
        "{}: {} images, {}x{}, from {}\n\n  level  resolution  shards         size\n",
        store.dir().display(),
        manifest.images,
        1 << manifest.max_level,
        1 << manifest.max_level,
        manifest.name,
    );
    // Writing to a string cannot fail.
    for level in &manifest.levels {
        let side = 1 << level.level;
        let size = size(manifest.images * level_bytes(level.level) as u64);
        let resolution = format!("{side}x{side}");
        writeln!(
            text,
            "  {:>5}  {resolution:>10}  {:>6}  {size:>11}",
            level.level,
            level.shards.len()
        )
        .ok();
    }
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

/// Bytes for people.
pub fn size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let power = (bytes.max(1).ilog2() / 10).min(4);
    if power == 0 {
        return format!("{bytes} B");
    }
    format!("{:.1} {}", bytes as f64 / (1_u64 << (10 * power)) as f64, units[power as usize])
}

/// Writes a PNG with up to 64 images, evenly spread over the store, at 128x128 or below.
pub fn contact_sheet(store: &Store, path: &Path) -> Result<()> {
    let level = store.max_level().min(SHEET_LEVEL);
    let side = 1_u32 << level;
    let shown = store.images().min(GRID * GRID);
    let (columns, rows) = (shown.min(GRID) as u32, shown.div_ceil(GRID) as u32);
    let mut sheet = RgbImage::from_pixel(columns * side, rows * side, image::Rgb([255; 3]));
    for place in 0..shown {
        let planes = store.image(level, place * store.images() / shown)?;
        let (left, top) = ((place % GRID) as u32 * side, (place / GRID) as u32 * side);
        let plane = level_bytes(level) / 3;
        for i in 0..plane {
            let (x, y) = (left + i as u32 % side, top + i as u32 / side);
            sheet.put_pixel(
                x,
                y,
                image::Rgb([planes[i], planes[plane + i], planes[2 * plane + i]]),
            );
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

const _: () = assert!(MIN_LEVEL <= SHEET_LEVEL, "every store has a level for the sheet");
