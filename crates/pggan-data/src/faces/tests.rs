//! Against what Pillow 3.1.1, `NumPy`, `SciPy` and libjpeg 8d make of the same numbers and pictures: see
//! `tests/data/faces/make.py`.

use std::path::PathBuf;

use serde::Deserialize;

use super::geometry::Margin;
use super::*;

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/faces").join(name)
}

fn json<T: for<'a> Deserialize<'a>>(name: &str) -> T {
    serde_json::from_slice(&std::fs::read(data(name)).unwrap()).unwrap()
}

fn png(name: &str) -> image::RgbImage {
    image::open(data(name)).unwrap().into_rgb8()
}

fn picture(image: &image::RgbImage) -> Picture<'_> {
    Picture { width: image.width(), height: image.height(), channels: 3, pixels: image.as_raw() }
}

fn grey(image: &image::RgbImage) -> Vec<u8> {
    image.as_raw().iter().copied().step_by(3).collect()
}

#[derive(Deserialize)]
struct Expected {
    points: Points,
    size: (u32, u32),
    resolution: u32,
    reduced: Option<(u32, u32)>,
    crop: [u32; 4],
    superres: u32,
    margin: Option<ExpectedMargin>,
    quad: [[f32; 2]; 4],
}

#[derive(Deserialize)]
struct ExpectedMargin {
    pad: [u32; 4],
    sigma: f64,
}

#[test]
fn plans_are_numpys() {
    let all: Vec<Expected> = json("plans.json");
    assert!(all.len() > 20);
    for expected in all {
        let Expected { points, size, resolution, reduced, crop, superres, margin, quad } = expected;
        let margin = margin.map(|ExpectedMargin { pad, sigma }| Margin { pad, sigma });
        let plan = Plan::new(&points, size, resolution).unwrap();
        assert_eq!(plan, Plan { reduced, crop, superres, margin, quad }, "{points:?}");
    }
}

#[test]
fn the_filter_is_pillows() {
    let source = png("source.png");
    for name in ["up", "down", "mixed"] {
        let expected = png(&format!("lanczos-{name}.png"));
        let to = (expected.width() as usize, expected.height() as usize);
        assert!(pillow::resize_picture(picture(&source), to) == *expected.as_raw(), "{name}");
        let pixels = grey(&source);
        let one = Picture { channels: 1, pixels: &pixels, ..picture(&source) };
        assert!(pillow::resize_picture(one, to) == grey(&expected), "{name}, grey");
    }
    let same = (source.width() as usize, source.height() as usize);
    assert!(pillow::resize_picture(picture(&source), same) == *source.as_raw());
}

#[test]
fn the_transform_is_pillows() {
    let (source, expected) = (png("source.png"), png("quad.png"));
    let corners = [[-3.2, 5.5], [4.1, 30.3], [38.7, 24.4], [33.3, -4.6]];
    let quad = Quad::new(picture(&source), &corners, 72);
    for (y, expected) in expected.rows().enumerate() {
        let mut row = [7; 3 * 72];
        quad.row(y, &mut row);
        assert!(expected.flat_map(|pixel| pixel.0).eq(row), "row {y}");
    }
}

#[test]
fn the_margin_is_scipys() {
    let (source, expected) = (png("source.png"), png("margin.png"));
    let size = (source.width() as usize, source.height() as usize);
    let margin = Margin { pad: [12, 9, 15, 20], sigma: 1.7 };
    let (pixels, width, height) = margin::pad(source.as_raw(), size, 3, &margin);
    assert_eq!((width as u32, height as u32), expected.dimensions());
    assert!(pixels == *expected.as_raw());
    // Of a single pixel everything is made that is asked for.
    let (pixels, ..) = margin::pad(&[9], (1, 1), 1, &Margin { pad: [3, 2, 1, 4], sigma: 2.0 });
    assert_eq!(pixels, [9; 5 * 7]);
}

#[test]
fn faces_are_those_of_the_original_tools() {
    let source = png("picture.png");
    let faces: Vec<Points> = json("aligned.json");
    for (number, points) in faces.iter().enumerate() {
        let mut planes = vec![0; 3 * 32 * 32];
        align(picture(&source), points, 32, &mut planes).unwrap();
        let expected = png(&format!("aligned-{number}.png"));
        let mut expected_planes = vec![0; planes.len()];
        planes::split(expected.as_raw(), 3, &mut expected_planes);
        assert!(planes == expected_planes, "face {number}");
        let pixels = grey(&source);
        let one = Picture { channels: 1, pixels: &pixels, ..picture(&source) };
        align(one, points, 32, &mut planes[..32 * 32]).unwrap();
        assert!(planes[..32 * 32] == expected_planes[..32 * 32], "face {number}, grey");
    }
}

#[test]
fn jpegs_are_libjpeg_8ds() {
    let sums: std::collections::BTreeMap<String, String> = json("jpeg/md5.json");
    assert!(sums.len() > 10);
    for (name, expected) in sums {
        let bytes = std::fs::read(data(&format!("jpeg/{name}"))).unwrap();
        let image = jpeg::decode(&bytes).unwrap();
        assert_eq!((image.width, image.height), (53, 37), "{name}");
        assert_eq!(deltas::md5(&image.pixels), expected, "{name}");
    }
}

/// A file that is cut off anywhere, or has a wrong byte anywhere, is an error or a picture, never a panic.
#[test]
fn damaged_jpegs_are_survived() {
    for name in ["420.jpg", "420-restart.jpg", "444-progressive.jpg", "odd.jpg"] {
        let bytes = std::fs::read(data(&format!("jpeg/{name}"))).unwrap();
        for length in (0..bytes.len() - 2).step_by(5) {
            assert!(jpeg::decode(&bytes[..length]).is_err(), "{name}, {length} bytes");
        }
        let whole = jpeg::decode(&bytes).unwrap();
        let mut damaged = bytes.clone();
        let mut noticed = 0;
        for (at, &was) in bytes.iter().enumerate().step_by(2) {
            damaged[at] = was ^ [0xff, 0x01, 0x80][at / 2 % 3];
            noticed += usize::from(jpeg::decode(&damaged).is_err());
            damaged[at] = was;
        }
        assert!(noticed > 20, "{name}");
        assert!(jpeg::decode(&damaged).unwrap().pixels == whole.pixels);
    }
}

/// The points of an upright face, turned by an angle in degrees, with its eyes so far apart.
fn face(middle: [f32; 2], eyes: f32, degrees: f32) -> Points {
    let (sin, cos) = degrees.to_radians().sin_cos();
    [[-0.5, 0.0], [0.5, 0.0], [0.0, 0.6], [-0.4, 1.1], [0.4, 1.1]].map(|[x, y]| {
        [middle[0] + eyes * (cos * x - sin * y), middle[1] + eyes * (sin * x + cos * y)]
    })
}

/// However a face lies and whatever its size: eyes and mouth come to the same places.
#[test]
fn eyes_and_mouth_land_where_the_square_says() {
    let side = 128_u32;
    // The mouth is 1.1 eye distances below the eyes; half the square is 2, and its middle 0.11 below the eyes.
    let place = |x: f32, y: f32| [x, y - 0.11].map(|v| (0.5 + v / 4.0) * side as f32 - 0.5);
    let expected = [place(-0.5, 0.0), place(0.5, 0.0), place(0.0, 1.1)];
    for (width, height, middle, eyes, degrees) in [
        (400, 300, [200., 120.], 60., 0.),
        (400, 300, [190., 150.], 40., 30.),
        (400, 300, [190., 150.], 50., -75.),
        (400, 300, [190., 150.], 45., 180.),
        (2000, 1500, [900., 700.], 300., 12.),
        (200, 160, [30., 80.], 25., -20.),
        (120, 120, [60., 50.], 12., 100.),
    ] {
        let points = face(middle, eyes, degrees);
        let mouth = [0, 1].map(|i| f32::midpoint(points[3][i], points[4][i]));
        let spots = [points[0], points[1], mouth];
        // Each spot in a colour of its own on black.
        let picture = image::RgbImage::from_fn(width, height, |x, y| {
            let near = |p: &[f32; 2]| (p[0] - x as f32).hypot(p[1] - y as f32) < 0.12 * eyes;
            image::Rgb(std::array::from_fn(|c| if near(&spots[c]) { 255 } else { 0 }))
        });
        let mut planes = vec![0; 3 * (side * side) as usize];
        align(self::picture(&picture), &points, side, &mut planes).unwrap();
        for (plane, expected) in planes.chunks_exact((side * side) as usize).zip(expected) {
            let mut sums = [0.0; 3];
            for (i, &value) in (0_u32..).zip(plane).filter(|(_, value)| **value > 127) {
                let (x, y, weight) = ((i % side) as f32, (i / side) as f32, value as f32);
                for (sum, add) in sums.iter_mut().zip([x * weight, y * weight, weight]) {
                    *sum += add;
                }
            }
            let found = [sums[0] / sums[2], sums[1] / sums[2]];
            let off = (found[0] - expected[0]).hypot(found[1] - expected[1]);
            assert!(off < 1.0, "{found:?}, not {expected:?}: {degrees} degrees, {eyes} pixels");
        }
    }
}

#[test]
fn faces_that_are_none_say_why() {
    let plan = |points: Points| Plan::new(&points, (200, 200), 1024).unwrap_err();
    let good = face([100., 100.], 40., 5.);
    assert!(Plan::new(&good, (200, 200), 1024).is_ok());
    for wrong in [f32::NAN, f32::INFINITY, -3e7] {
        let mut points = good;
        points[3][1] = wrong;
        assert!(plan(points).contains("not positions in an image"), "{wrong}");
    }
    assert!(plan([[50., 50.]; 5]).contains("fewer than 8 pixels"));
    assert!(plan(face([100., 100.], 1.9, 0.)).contains("fewer than 8 pixels"));
    assert!(plan(face([900., 100.], 40., 0.)).contains("outside of the image"));
    assert!(plan(face([100., 100.], 900_000., 0.)).contains("much larger than the image"));
}

/// The bound on memory that the module states, for the worst of faces.
#[test]
fn no_face_needs_more_than_is_stated() {
    let mut most = 0;
    for eyes in 2..3000_u32 {
        for degrees in [0., 45.] {
            // In the middle of a picture as large as there may be, and at its corner.
            for middle in [[6000., 5000.], [0., 0.]] {
                let points = face(middle, eyes as f32, degrees);
                let plan = Plan::new(&points, (12_000, 11_000), MAX_RESOLUTION);
                most = most.max(plan.map_or(0, |plan| plan.pixels()));
            }
        }
    }
    assert!((24 << 20..82_000_000).contains(&most), "{most}");
}

/// Deltas that are missing, damaged, or of something else: each is named, and nothing wrong is made.
#[test]
fn deltas_that_cannot_be_added() {
    let root = data("celebahq");
    let align = |celebahq| Align {
        landmarks: root.join("CelebA/Anno/list_landmarks_celeba.txt"),
        celebahq: Some(celebahq),
    };
    let images = root.join("CelebA/img_celeba");
    let aligned = align(CelebaHq::Listed(root.join("deltas")));
    let (_, faces) = Faces::open(&aligned, &images, LabelsFrom::None).unwrap();
    let listed = &faces.listed[0];
    let original = std::fs::read(images.join(&listed.file)).unwrap();
    let mut image = vec![0; 3 << 20];
    let mut aligner = faces.aligner(1024, Decoder::new(3, [0; 3]));
    aligner.apply(0, Form::Encoded, &original, &mut image).unwrap();
    assert_eq!(deltas::md5(&image), listed.aligned);

    let good = Deltas::open(&root.join("deltas")).unwrap();
    let refused = |deltas: &Deltas, listed: &Listed, original: &[u8], words: &str| {
        let error = deltas.add(listed, original, &mut image.clone()).unwrap_err();
        assert!(error.contains(words), "{words}: {error}");
    };
    let sum = "0123456789abcdef0123456789abcdef";
    let wrong = |change: fn(&mut Listed, String)| {
        let mut listed = listed.clone();
        change(&mut listed, sum.into());
        listed
    };
    good.add(listed, &original, &mut image.clone()).unwrap();
    refused(&good, &wrong(|l, sum| l.aligned = sum), &original, "or was decoded differently");
    refused(&good, &wrong(|l, sum| l.finished = sum), &original, "finished, it has the MD5");
    refused(&good, &wrong(|l, _| l.index = 7), &original, "there is no delta00007.dat");
    // That of another image: its file is another, and so is the key.
    refused(&good, &wrong(|l, _| l.index = 1), &original, "or encrypted with another file");
    refused(&good, &wrong(|l, _| l.file = "000001.jpg".into()), &original, "another file");
    refused(&good, listed, &[&original[..], &[0]].concat(), "another file");

    let space = tempfile::tempdir().unwrap();
    let archive = std::fs::read(root.join("deltas/deltas00000.zip")).unwrap();
    let mut damaged = archive.clone();
    // In the middle of the first entry.
    damaged[2000] ^= 0x10;
    std::fs::File::create(space.path().join("deltas00000.zip"))
        .and_then(|mut file| std::io::Write::write_all(&mut file, &damaged))
        .unwrap();
    refused(&Deltas::open(space.path()).unwrap(), listed, &original, "delta");
}
