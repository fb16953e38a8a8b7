//! Parts that are prepared apart and joined; windows; what inspection finds.

use std::fs;
use std::sync::Arc;

use pggan_data::{BatchSpec, LoaderOptions, Store, loader};

use crate::support::{Space, noise, snapshot};

fn part(space: &Space, shard: &str, more: &[&str]) -> crate::support::Run {
    let arguments = ["prepare", "--source", "in", "--dest", "parts", "--shard", shard];
    space.run(&[&arguments[..], &["--resolution", "32", "--labels", "folders"], more].concat())
}

fn in_folders(count: u32) -> Space {
    let space = Space::new();
    for i in 0..count {
        let folder = format!("in/{}", i % 3);
        fs::create_dir_all(space.file(&folder)).unwrap();
        noise(i, 40, 32).save(space.file(&format!("{folder}/{i:03}.png"))).unwrap();
    }
    space.write("in/1/bad.png", b"no image");
    space
}

#[test]
fn parts_make_the_same_data_set_as_the_whole() {
    let space = in_folders(20);
    space.prepare(&["--resolution", "32", "--labels", "folders"]).ok();
    let whole = Store::open(space.file("out")).unwrap();
    for shard in ["3/3", "1/3", "2/3"] {
        part(&space, shard, &[]).ok();
    }
    assert!(part(&space, "2/3", &[]).ok().starts_with("already prepared"));
    let said = space.run(&["merge", "parts"]).ok();
    assert!(said.contains("20 images of all parts"), "{said}");
    let merged = Store::open(space.file("parts")).unwrap();
    assert_eq!(merged.images(), whole.images());
    assert_eq!(merged.labels(), whole.labels());
    assert_eq!(merged.names().unwrap(), whole.names().unwrap());
    assert_eq!(merged.manifest().bad.count, 1);
    for level in 2..=5 {
        for index in 0..20 {
            assert_eq!(merged.image(level, index).unwrap(), whole.image(level, index).unwrap());
        }
    }
    assert!(space.run(&["verify", "parts"]).ok().contains("sound"));
    let names: Vec<_> = snapshot(&space.file("parts")).into_keys().collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("part-")), "{names:?}");
    let error = part(&space, "1/3", &[]).error();
    assert!(error.contains("merged already"), "{error}");
    let error = space.run(&["merge", "parts"]).error();
    assert!(error.contains("no parts"), "{error}");
}

/// Whatever had been moved when the run before died.
#[test]
fn a_merge_that_was_cut_short_is_continued() {
    let space = in_folders(12);
    for shard in ["1/2", "2/2"] {
        part(&space, shard, &[]).ok();
    }
    let parts = snapshot(&space.file("parts"));
    space.run(&["merge", "parts"]).ok();
    let merged = snapshot(&space.file("parts"));

    let restore = |files: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        for (path, bytes) in files {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let name = path.strip_prefix(space.file("")).unwrap().to_str().unwrap().to_owned();
            space.write(&name, bytes);
        }
    };
    for moved in 0..=8 {
        fs::remove_dir_all(space.file("parts")).unwrap();
        restore(&parts);
        // The first `moved` shards, in the order of the merge.
        let files: Vec<_> = (2..=5)
            .flat_map(|level| (1..=2).map(move |part| (level, part)))
            .map(|(level, part)| {
                (
                    format!("parts/part-{part:05}-of-00002/r{level:02}-00000.safetensors"),
                    format!("parts/r{level:02}-{:05}.safetensors", part - 1),
                )
            })
            .collect();
        for (from, to) in &files[..moved] {
            fs::rename(space.file(from), space.file(to)).unwrap();
        }
        space.run(&["merge", "parts"]).ok();
        assert_eq!(snapshot(&space.file("parts")), merged, "{moved} shards moved");
    }
    // All was done but removing the parts.
    restore(&parts.into_iter().filter(|(path, _)| path.ends_with("manifest.json")).collect());
    space.run(&["merge", "parts"]).ok();
    assert_eq!(snapshot(&space.file("parts")), merged);
}

#[test]
fn parts_that_cannot_be_joined() {
    let space = in_folders(12);
    fs::create_dir(space.file("parts")).unwrap();
    let merge = || space.run(&["merge", "parts"]).error();
    assert!(merge().contains("there are no parts"));
    part(&space, "1/3", &[]).ok();
    assert!(merge().contains("not finished: --shard 2/3, 3/3"), "{}", merge());
    part(&space, "2/3", &[]).ok();
    part(&space, "3/3", &["--channels", "1"]).ok();
    assert!(merge().contains("part 3/3 was prepared differently"), "{}", merge());
    part(&space, "1/2", &[]).ok();
    assert!(merge().contains("different numbers"), "{}", merge());
    for (shard, words) in
        [("0/3", "from 1/n to n/n"), ("4/3", "from 1/n"), ("3", "I/N"), ("a/b", "I/N")]
    {
        let error = part(&space, shard, &[]).error();
        assert!(error.contains(words), "{error}");
    }
    let error = space.prepare(&["--shard", "1/2"]).error();
    assert!(error.contains("needs a --resolution"), "{error}");
}

#[test]
fn the_recipe_of_celeba() {
    let space = Space::new();
    let image =
        |i: u8| image::RgbImage::from_fn(178, 218, |x, y| image::Rgb([x as u8, y as u8, i]));
    (0..2).for_each(|i| image(i).save(space.file(&format!("in/{i}.png"))).unwrap());
    noise(3, 100, 100).save(space.file("in/small.png")).unwrap();
    let run = space.prepare(&["--recipe", "celeba"]);
    assert!(
        run.stderr.contains("small.png: 100x100 pixels do not have 128x128 around 89, 121"),
        "{}",
        run.stderr
    );
    run.ok();
    let store = Store::open(space.file("out")).unwrap();
    assert_eq!((store.images(), store.max_level()), (2, 7));
    let pixels = store.image(7, 1).unwrap();
    assert_eq!((pixels[0], pixels[128 * 128], pixels[2 * 128 * 128]), (25, 57, 1));
    for wrong in ["89,121", "1,2,0", "x"] {
        let error = space.run(&["prepare", "--source=in", "--dest=x", "--crop", wrong]).error();
        assert!(error.contains("89,121,128"), "{error}");
    }
}

#[test]
fn inspection_finds_moments_and_repeats() {
    let space = Space::with_images(4, 16, 16);
    fs::copy(space.file("in/0001.png"), space.file("in/again.png")).unwrap();
    space.prepare(&[]).ok();
    let store = Store::open(space.file("out")).unwrap();
    let moments = pggan_data::statistics::moments(&store, 3).unwrap();
    assert_eq!(moments.len(), 3);
    for channel in 0..3 {
        let values: Vec<f64> = (0..5)
            .flat_map(|i| store.image(4, i).unwrap()[256 * channel..][..256].to_vec())
            .map(f64::from)
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((moments[2].mean[channel] - mean).abs() < 1e-9);
        assert!((moments[2].std[channel] - variance.sqrt()).abs() < 1e-6);
    }
    assert_eq!(pggan_data::statistics::duplicates(&store).unwrap(), [vec![1, 4]]);
    let said = space.run(&["inspect", "out", "--stats", "--dedup"]).ok();
    assert!(said.contains("2 images look like another, in 1 groups"), "{said}");
    assert!(said.contains("0001.png, again.png") && said.contains("standard deviation"), "{said}");
}

#[test]
fn a_balanced_loader_draws_classes_equally() {
    let space = Space::new();
    for (folder, count) in [("few", 1), ("many", 9)] {
        fs::create_dir(space.file(&format!("in/{folder}"))).unwrap();
        (0..count).for_each(|i| {
            noise(i, 8, 8).save(space.file(&format!("in/{folder}/{i}.png"))).unwrap();
        });
    }
    space.prepare(&["--labels", "folders"]).ok();
    let store = Arc::new(Store::open(space.file("out")).unwrap());
    let few = |balanced| {
        let options = LoaderOptions { balanced, ..LoaderOptions::default() };
        let spec = BatchSpec { level: 2, first_position: 0, count: 100 };
        let batch = loader::load(&store, &options, spec, pggan_data::Batch::empty()).unwrap();
        batch.labels.chunks_exact(2).filter(|row| row[0] == 1.0).count()
    };
    assert_eq!((few(true), few(false)), (50, 10));
}
