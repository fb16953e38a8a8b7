//! What the targets of the data sets have in common: bytes become a file of a folder, which is then read.

use std::fs;
use std::path::PathBuf;
use std::sync::{LazyLock, Once};

use pggan_data::decode::{Decoder, Form};
use pggan_data::loader::load;
use pggan_data::source::{LabelsFrom, Source};
use pggan_data::store::manifest::{Compression, Layout};
use pggan_data::{Batch, BatchSpec, LoaderOptions, PrepareOptions, Store, inspect, prepare};

/// Images that are read of a source.
const IMAGES: usize = 20;
/// Bytes that are read of an image file.
const IMAGE_BYTES: u64 = 1 << 20;

/// A folder of this process. It is left behind.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("pggan-fuzz-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("there is room for temporary files");
    folder
});

/// Writes a file into the folder.
pub fn write(name: &str, bytes: &[u8]) {
    fs::write(FOLDER.join(name), bytes).expect("there is room for temporary files");
}

/// Makes a file the only one of a folder in the folder, which is then read as a source.
pub fn folder(folder: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(FOLDER.join(folder)).expect("there is room for temporary files");
    write(&format!("{folder}/{name}"), bytes);
    read_source(folder);
}

/// Makes a file and reads it as a source.
pub fn source(name: &str, bytes: &[u8]) {
    write(name, bytes);
    read_source(name);
}

/// Lists the images of a source and reads the first of them.
pub fn read_source(name: &str) {
    let Ok(source) = Source::open(&FOLDER.join(name), LabelsFrom::Auto) else { return };
    source.fingerprint();
    source.labels_fingerprint();
    let Ok(mut reader) = source.reader() else { return };
    let (mut decoder, mut read) = (Decoder::new(3, [255; 3]), Vec::new());
    for index in 0..source.entries().len().min(IMAGES) {
        // Files are what `decode` is about.
        if let Ok(form @ Form::Pixels { .. }) = reader.read(index, IMAGE_BYTES, &mut read) {
            decoder.decode(form, &read, |_| ()).ok();
        }
    }
}

/// A prepared data set: labels, pixels as they are at 4x4, PNG files at 8x8. And its manifest.
static PREPARED: LazyLock<(PathBuf, String)> = LazyLock::new(|| {
    let dir = FOLDER.join("prepared");
    let mut options = PrepareOptions::new("synthetic:3x8", &dir);
    options.compression = Some(Compression { codec: Layout::Png, above: 4, quality: 0 });
    prepare(&options, |_| {}).expect("synthetic images are sound");
    let manifest = fs::read_to_string(dir.join(MANIFEST)).expect("it has just been made");
    (dir, manifest)
});

/// What a prepared data set begins with.
pub const MANIFEST: &str = "manifest.json";

/// Replaces a file of a prepared data set, reads all of it, and puts the file back.
pub fn prepared(name: &str, bytes: &[u8]) {
    let (dir, manifest) = &*PREPARED;
    let sound = fs::read(dir.join(name)).expect("it has just been made");
    let write = |name: &str, bytes: &[u8]| write(&format!("prepared/{name}"), bytes);
    // With the sum of what is in its place it gets further.
    let sum = |bytes: &[u8]| blake3::hash(bytes).to_hex().to_string();
    write(MANIFEST, manifest.replace(&sum(&sound), &sum(bytes)).as_bytes());
    write(name, bytes);
    if let Ok(store) = Store::open(dir) {
        inspect::table(&store);
        let options = LoaderOptions { balanced: true, mirror: true, ..LoaderOptions::default() };
        for level in 2..=3 {
            let spec = BatchSpec { level, first_position: 0, count: 4 };
            load(&store, &options, spec, Batch::empty()).ok();
        }
        store.verify(1, |_| {}).ok();
    }
    write(name, &sound);
}

/// libFuzzer ends the process at every panic. Those of decoders are caught by design, and must not; those
/// that nobody catches end it still.
pub fn let_panics_be_caught() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(std::panic::take_hook()));
}
