//! What the trainer waits for (a random batch) and what preparing costs an image.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use image::{ImageFormat, Rgb, RgbImage};
use pggan_data::decode::{Decoder, Form};
use pggan_data::loader::load;
use pggan_data::pyramid::{Pyramid, level_bytes, pyramid_bytes};
use pggan_data::store::manifest::{Crop, Filter};
use pggan_data::transform::Transform;
use pggan_data::{Batch, BatchSpec, LoaderOptions, PrepareOptions, Store, prepare};

const SIDE: u32 = 512;

/// Soft shapes, which a JPEG compresses about as well as a photograph.
fn picture(seed: u32) -> RgbImage {
    RgbImage::from_fn(SIDE, SIDE, |x, y| {
        let wave = |period: u32| ((x * seed + y * y / 64) / period % 256) as u8;
        Rgb([wave(3), wave(5), wave(11)])
    })
}

fn images(c: &mut Criterion) {
    let mut jpeg = std::io::Cursor::new(Vec::new());
    picture(1).write_to(&mut jpeg, ImageFormat::Jpeg).expect("memory takes it");
    let jpeg = jpeg.into_inner();
    let mut decoder = Decoder::new(3, [255; 3]);
    let mut group = c.benchmark_group("image 512x512");
    group.throughput(Throughput::Elements(1));
    group.bench_function("decode JPEG", |b| {
        b.iter(|| {
            let first = |picture: pggan_data::decode::Picture<'_>| black_box(picture.pixels[0]);
            decoder.decode(Form::Encoded, &jpeg, first).expect("it is sound")
        });
    });

    let mut transform = Transform::new(SIDE / 2, Crop::Center, Filter::Lanczos3, [255; 3]);
    let mut planes = vec![0; level_bytes(3, 8)];
    group.bench_function("decode and resize to 256", |b| {
        b.iter(|| {
            decoder
                .decode(Form::Encoded, &jpeg, |picture| transform.apply(picture, &mut planes))
                .expect("it is sound")
        });
    });

    let mut pyramid = Pyramid::new(3);
    let mut levels = vec![100; pyramid_bytes(3, 9)];
    group.bench_function("pyramid", |b| b.iter(|| pyramid.fill(9, black_box(&mut levels))));
    group.finish();
}

fn batches(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("there is room for a temporary folder");
    let (source, dest) = (dir.path().join("in"), dir.path().join("out"));
    std::fs::create_dir(&source).expect("the folder is new");
    for i in 0..100 {
        picture(i).save(source.join(format!("{i}.bmp"))).expect("there is room");
    }
    prepare(&PrepareOptions::new(&source, &dest), |_| {}).expect("the images are sound");
    let store = Store::open(&dest).expect("it was just made");
    let options = LoaderOptions { mirror: true, ..LoaderOptions::default() };

    let mut group = c.benchmark_group("batch of 16");
    for level in [2, 5, 7, 9] {
        let mut next = 0;
        let mut batch = Batch::empty();
        group.throughput(Throughput::Elements(16));
        group.bench_function(format!("{0}x{0}", 1 << level), |b| {
            b.iter(|| {
                let spec = BatchSpec { level, first_position: next, count: 16 };
                next += 16;
                let recycled = std::mem::replace(&mut batch, Batch::empty());
                batch = load(&store, &options, spec, recycled).expect("the store is sound");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, images, batches);
criterion_main!(benches);
