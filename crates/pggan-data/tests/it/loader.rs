//! Batches from a store.

use std::sync::Arc;

use pggan_data::sampler::{Sampler, mirror};
use pggan_data::{BatchSpec, Error, Loader, LoaderOptions, Store};

use crate::support::Space;

fn store(space: &Space) -> Arc<Store> {
    space.prepare(&[]).ok();
    Arc::new(Store::open(space.file("out")).unwrap())
}

/// A schedule that grows: level and size change, positions go on.
fn growing() -> Vec<BatchSpec> {
    let mut position = 0;
    let sizes = [(2, 16), (2, 16), (3, 16), (4, 5), (4, 1), (3, 7), (5, 2), (2, 0), (5, 3)];
    let spec = |(level, count)| {
        let spec = BatchSpec { level, first_position: position, count };
        position += count as u64;
        spec
    };
    sizes.map(spec).to_vec()
}

#[test]
fn batches_come_in_order_over_changes_of_level_and_size() {
    let space = Space::with_images(7, 32, 32);
    let store = store(&space);
    let sampler = Sampler::new(11, 7);
    for (threads, prefetch) in [(1, 1), (1, 4), (3, 2), (2, 20)] {
        let options =
            LoaderOptions { seed: 11, mirror: true, prefetch, threads, ..Default::default() };
        let mut loader = Loader::new(&store, options, growing().into_iter());
        for spec in growing() {
            let batch = loader.next().unwrap().unwrap();
            assert_eq!(
                (batch.level, batch.first_position, batch.count),
                (spec.level, spec.first_position, spec.count)
            );
            let side = 1 << spec.level;
            assert_eq!(batch.pixels.len(), spec.count * 3 * side * side);
            for (i, pixels) in batch.pixels.chunks_exact(3 * side * side).enumerate() {
                let position = spec.first_position + i as u64;
                let index = sampler.index(position);
                assert_eq!(batch.indices[i], index);
                let mut expected = store.image(spec.level, index).unwrap().to_vec();
                if mirror(11, position) {
                    expected.chunks_exact_mut(side).for_each(<[u8]>::reverse);
                }
                assert_eq!(pixels, expected, "position {position}");
            }
            loader.recycle(batch);
        }
        assert!(loader.next().is_none());
    }
}

#[test]
fn memory_is_used_again() {
    let space = Space::with_images(3, 8, 8);
    let specs = (0..50).map(|i| BatchSpec { level: 3, first_position: 4 * i, count: 4 });
    let options = LoaderOptions { prefetch: 2, ..LoaderOptions::default() };
    let mut loader = Loader::new(&store(&space), options, specs);
    let mut places = std::collections::BTreeSet::new();
    while let Some(batch) = loader.next() {
        let batch = batch.unwrap();
        places.insert(batch.pixels.as_ptr().addr());
        loader.recycle(batch);
    }
    assert!(places.len() <= 4, "two ahead, one in use, one spare: {}", places.len());
}

#[test]
fn a_batch_that_cannot_be_had_is_an_error_and_the_next_comes() {
    let space = Space::with_images(3, 8, 8);
    let specs = [3, 4, 1, 2].map(|level| BatchSpec { level, first_position: 0, count: 2 });
    let mut loader = Loader::new(&store(&space), LoaderOptions::default(), specs.into_iter());
    assert!(loader.next().unwrap().is_ok());
    for _ in 0..2 {
        let error = loader.next().unwrap().unwrap_err();
        assert!(matches!(error, Error::OutOfRange { max_level: 3, .. }), "{error}");
    }
    assert_eq!(loader.next().unwrap().unwrap().level, 2);
}

/// Damage behind the headers is found before a pixel is handed out.
#[test]
fn damaged_pixels_are_never_loaded() {
    let space = Space::with_images(3, 8, 8);
    space.prepare(&[]).ok();
    let mut bytes = std::fs::read(space.file("out/r02-00000.safetensors")).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    space.write("out/r02-00000.safetensors", &bytes);
    let store = Arc::new(Store::open(space.file("out")).unwrap());
    let specs = [2, 3].map(|level| BatchSpec { level, first_position: 0, count: 1 });
    let mut loader = Loader::new(&store, LoaderOptions::default(), specs.into_iter());
    let error = loader.next().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("r02-00000.safetensors: damaged") && error.contains("BLAKE3"),
        "{error}"
    );
    assert!(loader.next().unwrap().is_ok());
}

#[test]
fn an_abandoned_loader_stops() {
    let space = Space::with_images(3, 8, 8);
    let endless = (0..).map(|i| BatchSpec { level: 3, first_position: i, count: 1 });
    let options = LoaderOptions { threads: 2, ..LoaderOptions::default() };
    let store = store(&space);
    let mut loader = Loader::new(&store, options, endless);
    loader.next().unwrap().unwrap();
    drop(loader);
    assert_eq!(Arc::strong_count(&store), 1, "its threads have ended and let go of the store");
}
