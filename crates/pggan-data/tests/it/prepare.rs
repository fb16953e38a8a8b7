//! What `prepare` makes of good images.

use std::fs::File;
use std::io::Write;

use pggan_data::Store;
use pggan_data::pyramid::{Pyramid, level_bytes, levels, pyramid_bytes};
use safetensors::SafeTensors;

use crate::support::{Space, noise, snapshot};

#[test]
fn squares_are_stored_unchanged_with_their_pyramids() {
    let space = Space::with_images(5, 32, 32);
    let said = space.prepare(&[]).ok();
    assert!(said.starts_with("prepared 5 images at 4x4 to 32x32"), "{said}");

    let store = Store::open(space.file("out")).unwrap();
    assert_eq!((store.images(), store.max_level()), (5, 5));
    for index in 0..5 {
        let picture = noise(index, 32, 32);
        let mut image: Vec<u8> =
            (0..3).flat_map(|c| picture.pixels().map(move |p| p.0[c])).collect();
        image.resize(pyramid_bytes(3, 5), 0);
        Pyramid::new(3).fill(5, &mut image);
        for (level, pixels) in levels(3, 5, &image) {
            assert!(
                store.image(level, index as u64).unwrap() == pixels,
                "image {index} level {level}"
            );
        }
    }
    let names = std::fs::read_to_string(space.file("out/names.txt")).unwrap();
    assert_eq!(names, "0000.png\n0001.png\n0002.png\n0003.png\n0004.png\n");
    assert!(space.run(&["verify", "out"]).ok().contains("sound"));
    assert!(space.run(&["inspect", "out"]).ok().contains("32x32"));
}

#[test]
fn shards_are_safetensors_of_the_stated_size() {
    let space = Space::with_images(50, 128, 128);
    space.prepare(&["--shard-mib", "1"]).ok();
    let store = Store::open(space.file("out")).unwrap();
    let counts: Vec<_> = store.manifest().levels.iter().map(|level| level.shards.len()).collect();
    assert_eq!(counts, [1, 1, 1, 1, 1, 3], "21 images of 128x128 fit a MiB");
    let bytes = std::fs::read(space.file("out/r07-00002.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let images = tensors.tensor("images").unwrap();
    assert_eq!(images.shape(), [8, 3, 128, 128]);
    assert_eq!(store.image(7, 42).unwrap(), &images.data()[..level_bytes(3, 7)]);
}

#[test]
fn bytes_do_not_depend_on_threads_or_places() {
    let first = Space::with_images(60, 70, 50);
    let second = Space::with_images(60, 70, 50);
    first.prepare(&["--threads", "1", "--resolution", "32"]).ok();
    second.prepare(&["--threads", "7", "--resolution", "32x32"]).ok();
    let (one, seven) = (snapshot(&first.file("out")), snapshot(&second.file("out")));
    assert_eq!(one.len(), 6);
    assert!(one.values().eq(seven.values()));
}

#[test]
fn zip_and_folder_give_the_same_images() {
    let space = Space::with_images(4, 20, 20);
    let mut zip = zip::ZipWriter::new(File::create(space.file("set.zip")).unwrap());
    for (i, method) in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated]
        .iter()
        .cycle()
        .take(4)
        .enumerate()
    {
        // Written backwards, with a stylegan archive's folders: order comes from the names.
        let i = 3 - i;
        let options = zip::write::SimpleFileOptions::default().compression_method(*method);
        zip.start_file(format!("00000/img{i:08}.png"), options).unwrap();
        zip.write_all(&std::fs::read(space.file(&format!("in/{i:04}.png"))).unwrap()).unwrap();
    }
    zip.start_file("dataset.json", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(b"{}").unwrap();
    zip.finish().unwrap();

    space.prepare(&[]).ok();
    let said = space.run(&["prepare", "--source", "set.zip", "--dest", "zipped"]).ok();
    assert!(!said.contains("passed over") && !said.contains("labels"), "{said}");
    let (folder, zipped) = (snapshot(&space.file("out")), snapshot(&space.file("zipped")));
    let pixels = |files: std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        let shards = files
            .into_iter()
            .filter(|(path, _)| path.extension().is_some_and(|e| e == "safetensors"));
        shards.map(|(_, bytes)| bytes).collect::<Vec<_>>()
    };
    assert_eq!(pixels(folder), pixels(zipped));
}

#[test]
fn the_same_request_is_answered_once() {
    let space = Space::with_images(3, 16, 16);
    space.prepare(&[]).ok();
    let before = snapshot(&space.file("out"));
    let said = space.prepare(&["--threads", "3"]).ok();
    assert!(said.starts_with("already prepared: 3 images"), "{said}");

    // Another request is refused, and --force carries it out.
    let refused = space.prepare(&["--resolution", "8"]).error();
    assert!(
        refused.contains("resolution automatic, not 8") && refused.contains("--force"),
        "{refused}"
    );
    assert_eq!(snapshot(&space.file("out")), before);
    let said = space.prepare(&["--resolution", "8", "--force"]).ok();
    assert!(said.starts_with("prepared 3 images at 4x4 to 8x8"), "{said}");
    let files: Vec<_> = snapshot(&space.file("out"))
        .into_keys()
        .map(|p| p.file_name().unwrap().to_owned())
        .collect();
    assert_eq!(
        files,
        ["manifest.json", "names.txt", "r02-00000.safetensors", "r03-00000.safetensors"]
    );

    // So does another source.
    noise(9, 16, 16).save(space.file("in/new.png")).unwrap();
    let refused = space.prepare(&["--resolution", "8"]).error();
    assert!(refused.contains("the source has other files"), "{refused}");
}

#[test]
fn options_do_what_they_say() {
    let space = Space::with_images(6, 16, 16);
    space.prepare(&["--max-images", "4", "--upscale", "--resolution", "32"]).ok();
    let store = Store::open(space.file("out")).unwrap();
    assert_eq!((store.images(), store.max_level(), store.manifest().enlarged), (4, 5, 4));

    let clear = image::RgbaImage::from_pixel(8, 8, image::Rgba([9, 9, 9, 0]));
    let space = Space::new();
    for name in ["in/a.png", "in/b.png"] {
        clear.save(space.file(name)).unwrap();
    }
    space.prepare(&["--background", "1,2,3"]).ok();
    let store = Store::open(space.file("out")).unwrap();
    assert_eq!(
        store.image(2, 1).unwrap().chunks(16).map(|plane| plane[5]).collect::<Vec<_>>(),
        [1, 2, 3]
    );
}

#[test]
fn a_contact_sheet_is_a_picture_of_the_images() {
    let space = Space::with_images(10, 16, 16);
    space.prepare(&[]).ok();
    space.run(&["inspect", "out", "--contact-sheet", "sheet.png"]).ok();
    let sheet = image::open(space.file("sheet.png")).unwrap().to_rgb8();
    assert_eq!(sheet.dimensions(), (8 * 16, 2 * 16));
    let ninth = image::imageops::crop_imm(&sheet, 0, 16, 16, 16).to_image();
    assert_eq!(ninth, noise(8, 16, 16));
}
