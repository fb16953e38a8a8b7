use std::io::Cursor;

use image::{DynamicImage, ExtendedColorType, GrayImage, ImageEncoder, Rgb, RgbImage};
use proptest::prelude::*;

use super::*;

type Outcome = Result<(u32, u32, Vec<u8>), String>;

fn decode_on(background: [u8; 3], bytes: &[u8]) -> Outcome {
    Decoder::new(3, background)
        .decode(Form::Encoded, bytes, |p| (p.width, p.height, p.pixels.to_vec()))
}

fn decode(bytes: &[u8]) -> Outcome {
    decode_on([255; 3], bytes)
}

fn encode(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn png(samples: &[u8], width: u32, height: u32, color: ExtendedColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(samples, width, height, color)
        .unwrap();
    bytes
}

/// A picture with a different colour in each corner, in blocks that JPEG keeps apart.
fn corners(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => Rgb([200, 40, 40]),
        (false, true) => Rgb([40, 200, 40]),
        (true, false) => Rgb([40, 40, 200]),
        (false, false) => Rgb([180, 180, 60]),
    })
}

fn close(found: &[u8], expected: &[u8], within: u8) -> bool {
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(a, b)| a.abs_diff(*b) <= within)
}

fn native(samples: &[u16]) -> Vec<u8> {
    samples.iter().flat_map(|s| s.to_ne_bytes()).collect()
}

#[test]
fn every_colour_type_of_png() {
    use ExtendedColorType::{L8, L16, La8, La16, Rgb8, Rgb16, Rgba8, Rgba16};
    // Two pixels each, on the background (10, 20, 30).
    for (name, samples, color, expected) in [
        ("grey", vec![7, 250], L8, [7, 7, 7, 250, 250, 250]),
        ("grey, alpha", vec![7, 255, 99, 0], La8, [7, 7, 7, 10, 20, 30]),
        ("RGB", vec![1, 2, 3, 4, 5, 6], Rgb8, [1, 2, 3, 4, 5, 6]),
        // 200·(51/255) + 10·(204/255) = 48, 56, 64
        ("RGBA", vec![1, 2, 3, 255, 200, 200, 200, 51], Rgba8, [1, 2, 3, 48, 56, 64]),
        ("16 bit grey", native(&[257 * 9, 65_535]), L16, [9, 9, 9, 255, 255, 255]),
        ("16 bit rounds", native(&[128, 129]), L16, [0, 0, 0, 1, 1, 1]),
        ("16 bit grey, alpha", native(&[0, 65_535, 65_535, 0]), La16, [0, 0, 0, 10, 20, 30]),
        ("16 bit RGB", native(&[257, 514, 771, 0, 65_535, 32_896]), Rgb16, [1, 2, 3, 0, 255, 128]),
        (
            "16 bit RGBA",
            native(&[257, 514, 771, 65_535, 51_400, 51_400, 51_400, 13_107]),
            Rgba16,
            [1, 2, 3, 48, 56, 64],
        ),
    ] {
        let found = decode_on([10, 20, 30], &png(&samples, 2, 1, color));
        assert_eq!(found, Ok((2, 1, expected.to_vec())), "{name}");
    }
}

#[test]
fn palettes_small_depths_and_transparent_colours() {
    use png::{BitDepth, ColorType::Grayscale, ColorType::Indexed};
    let write = |depth, color, trns: Option<Vec<u8>>, row: &[u8]| {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == Indexed {
            encoder.set_palette(vec![1, 2, 3, 200, 200, 200]);
        }
        if let Some(trns) = trns {
            encoder.set_trns(trns);
        }
        encoder.write_header().unwrap().write_image_data(row).unwrap();
        bytes
    };
    for (name, bytes, expected) in [
        (
            "1 bit palette",
            write(BitDepth::One, Indexed, None, &[0b0100_0000]),
            [1, 2, 3, 200, 200, 200],
        ),
        (
            "palette, alpha",
            write(BitDepth::Eight, Indexed, Some(vec![255, 51]), &[0, 1]),
            [1, 2, 3, 48, 56, 64],
        ),
        (
            "2 bit grey",
            write(BitDepth::Two, Grayscale, None, &[0b0111_0000]),
            [85, 85, 85, 255, 255, 255],
        ),
    ] {
        assert_eq!(decode_on([10, 20, 30], &bytes), Ok((2, 1, expected.to_vec())), "{name}");
    }
}

#[test]
fn every_format() {
    let picture = corners(32, 16);
    for (format, within) in [
        (ImageFormat::Png, 0),
        (ImageFormat::Bmp, 0),
        (ImageFormat::WebP, 0),
        (ImageFormat::Gif, 0),
        (ImageFormat::Jpeg, 24),
    ] {
        let bytes = encode(picture.clone(), format);
        assert_eq!(dimensions(Form::Encoded, &bytes), Ok((32, 16)), "{format:?}");
        let (width, height, rgb) = decode(&bytes).unwrap();
        assert_eq!((width, height), (32, 16), "{format:?}");
        assert!(close(&rgb, &picture, within), "{format:?}");
    }
    let grey = GrayImage::from_pixel(9, 5, image::Luma([77]));
    for format in [ImageFormat::Jpeg, ImageFormat::Bmp] {
        let (.., rgb) = decode(&encode(grey.clone(), format)).unwrap();
        assert!(close(&rgb, &[77; 9 * 5 * 3], 2), "grey {format:?}");
    }
}

#[test]
fn jpegs_of_printers_and_progressive_ones() {
    use jpeg_encoder::{ColorType, Encoder};
    let picture = corners(32, 32);
    // What a printer needs for these colours without black ink; `jpeg-encoder` stores it inverted, with
    // Adobe's marker, as printers' programs do.
    let cmyk: Vec<u8> =
        picture.pixels().flat_map(|Rgb([r, g, b])| [255 - r, 255 - g, 255 - b, 0]).collect();
    for (name, color) in [("CMYK", ColorType::Cmyk), ("YCCK", ColorType::CmykAsYcck)] {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes, 98).encode(&cmyk, 32, 32, color).unwrap();
        let (.., rgb) = decode(&bytes).unwrap();
        assert!(close(&rgb, &picture, 6), "{name}: {:?}", &rgb[..6]);
    }
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 98);
    encoder.set_progressive(true);
    encoder.encode(&picture, 32, 32, ColorType::Rgb).unwrap();
    assert!(close(&decode(&bytes).unwrap().2, &picture, 24), "progressive");
}

/// The JPEG of `image` with an EXIF orientation, in either byte order.
fn oriented(image: &RgbImage, orientation: u8, big_endian: bool) -> Vec<u8> {
    let jpeg = encode(image.clone(), ImageFormat::Jpeg);
    let number = |value: u32, bytes: usize| {
        if big_endian {
            value.to_be_bytes()[4 - bytes..].to_vec()
        } else {
            value.to_le_bytes()[..bytes].to_vec()
        }
    };
    let order: &[u8] = if big_endian { b"MM" } else { b"II" };
    let tiff = [
        order,
        &number(42, 2),
        &number(8, 4),
        &number(1, 2),
        &number(0x112, 2),
        &number(3, 2),
        &number(1, 4),
        &number(orientation as u32, 2),
        &[0; 2],
        &number(0, 4),
    ];
    let exif = [b"Exif\0\0".to_vec(), tiff.concat()].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, 0xE1], &length, &exif, &jpeg[2..]].concat()
}

#[test]
fn exif_orientation_is_applied() {
    use image::imageops::{flip_horizontal as flip, rotate90, rotate180, rotate270};
    let upright = corners(32, 16);
    let turned = |image: &RgbImage, operations: &[fn(&RgbImage) -> RgbImage]| {
        operations.iter().fold(image.clone(), |image, operation| operation(&image))
    };
    // How a camera that notes the orientation stored the upright picture.
    for (orientation, stored) in [
        (1, turned(&upright, &[])),
        (2, turned(&upright, &[flip])),
        (3, turned(&upright, &[rotate180])),
        (4, turned(&upright, &[rotate180, flip])),
        (5, turned(&upright, &[rotate90, flip])),
        (6, turned(&upright, &[rotate270])),
        (7, turned(&upright, &[rotate270, flip])),
        (8, turned(&upright, &[rotate90])),
        (9, turned(&upright, &[])),
    ] {
        for big_endian in [false, true] {
            let bytes = oriented(&stored, orientation, big_endian);
            assert_eq!(
                dimensions(Form::Encoded, &bytes),
                Ok((32, 16)),
                "orientation {orientation}"
            );
            let (width, height, rgb) = decode(&bytes).unwrap();
            assert_eq!((width, height), (32, 16), "orientation {orientation}");
            assert!(close(&rgb, &upright, 24), "orientation {orientation}");
        }
    }
}

#[test]
fn buffers_do_not_leak_from_one_image_into_the_next() {
    let mut decoder = Decoder::new(3, [0; 3]);
    let pictures = [corners(40, 40), corners(8, 8), corners(16, 64)];
    for format in [ImageFormat::Png, ImageFormat::Gif] {
        for picture in &pictures {
            let bytes = encode(picture.clone(), format);
            let rgb =
                decoder.decode(Form::Encoded, &bytes, |picture| picture.pixels.to_vec()).unwrap();
            assert_eq!(&rgb, picture.as_raw());
        }
    }
}

#[test]
fn files_that_are_cut_off_are_bad() {
    let noise = RgbImage::from_fn(64, 64, |x, y| {
        Rgb([(x * y * 7) as u8, (x * 31 + y) as u8, ((y * 13) ^ x) as u8])
    });
    for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Bmp] {
        let bytes = encode(noise.clone(), format);
        assert!(decode(&bytes).is_ok(), "{format:?}");
        for percent in [0, 1, 10, 50, 90, 97] {
            let cut = &bytes[..bytes.len() * percent / 100];
            assert!(decode(cut).is_err(), "{format:?} cut to {percent}%");
        }
    }
    let gif = encode(noise, ImageFormat::Gif);
    assert!(decode(&gif[..gif.len() / 2]).is_err());
}

#[test]
fn what_is_no_image_says_so() {
    for (bytes, reason) in [
        (b"# Notes\nnot a picture".as_slice(), "its content is no image"),
        (b"", "its content is no image"),
        (b"II*\0\x08\0\0\0\0\0\0\0", "Tiff is not supported; convert it to PNG"),
    ] {
        assert_eq!(decode(bytes), Err(reason.to_owned()));
        assert_eq!(dimensions(Form::Encoded, bytes), Err(reason.to_owned()));
    }
}

/// Headers that promise more than fits are refused before anything is allocated.
#[test]
fn lying_headers_cost_nothing() {
    let mut huge_png = png(&[0; 4], 2, 2, ExtendedColorType::L8);
    huge_png[16..24].copy_from_slice(&[0, 0, 0xFF, 0xFF, 0, 0, 0xFF, 0xFF]);
    let crc = crc32(&huge_png[12..29]);
    huge_png[29..33].copy_from_slice(&crc.to_be_bytes());
    let mut huge_jpeg = encode(corners(16, 16), ImageFormat::Jpeg);
    let sof = huge_jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    huge_jpeg[sof + 5..sof + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    let mut huge_gif = encode(corners(4, 4), ImageFormat::Gif);
    huge_gif[6..10].copy_from_slice(&[0xFF; 4]);
    let mut huge_bmp = encode(corners(4, 4), ImageFormat::Bmp);
    huge_bmp[18..26].copy_from_slice(&[0xFF, 0xFF, 0, 0, 0xFF, 0xFF, 0, 0]);
    for (name, bytes) in
        [("PNG", huge_png), ("JPEG", huge_jpeg), ("GIF", huge_gif), ("BMP", huge_bmp)]
    {
        let mut decoder = Decoder::new(3, [0; 3]);
        let reason = decoder.decode(Form::Encoded, &bytes, |_| ()).unwrap_err();
        assert!(reason.contains("limit"), "{name}: {reason}");
        assert_eq!(decoder.pixels.capacity() + decoder.raw.capacity(), 0, "{name}");
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ byte as u32, |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Damage anywhere gives a picture of the announced size or a reason, never a panic.
    #[test]
    fn damaged_files_are_pictures_or_reasons(
        format in prop::sample::select(vec![
            ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP, ImageFormat::Gif, ImageFormat::Bmp,
        ]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(corners(16, 24), format);
        for (place, value) in damage {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        match decode(&bytes) {
            Ok((width, height, rgb)) => {
                prop_assert_eq!(dimensions(Form::Encoded, &bytes), Ok((width, height)));
                prop_assert_eq!(rgb.len(), 3 * width as usize * height as usize);
            }
            Err(reason) => prop_assert!(!reason.is_empty() && reason != "the decoder panicked"),
        }
    }
}

/// One picture with a half transparent pixel, in every form, to every number of channels.
#[test]
fn channels_are_as_asked_for() {
    use ExtendedColorType::{L8, Rgb8, Rgba8};
    let (grey, rgb) = ([7, 250], [200, 40, 40, 40, 40, 200]);
    let rgba = [200, 40, 40, 255, 100, 100, 100, 51];
    let to = |channels, form, bytes: &[u8]| {
        let mut decoder = Decoder::new(channels, [10, 20, 30]);
        decoder.decode(form, bytes, |p| {
            assert_eq!(p.channels, channels);
            p.pixels.to_vec()
        })
    };
    // 0.299·200 + 0.587·40 + 0.114·40 = 87.8; of (28, 36, 44), which is 100 at a fifth: 34.5
    let cases: [(&[u8], _, [&[u8]; 3]); 3] = [
        (&grey, L8, [&grey, &[7, 7, 7, 250, 250, 250], &[7, 7, 7, 255, 250, 250, 250, 255]]),
        (&rgb, Rgb8, [&[88, 58], &rgb, &[200, 40, 40, 255, 40, 40, 200, 255]]),
        (&rgba, Rgba8, [&[88, 35], &[200, 40, 40, 28, 36, 44], &rgba]),
    ];
    for (samples, color, expected) in cases {
        let raw = Form::Pixels { width: 2, height: 1, channels: samples.len() / 2 };
        for (channels, expected) in [1, 3, 4].into_iter().zip(expected) {
            let encoded = to(channels, Form::Encoded, &png(samples, 2, 1, color));
            assert_eq!(encoded.as_deref(), Ok(expected), "{color:?} to {channels}");
            assert_eq!(to(channels, raw, samples).as_deref(), Ok(expected));
        }
    }
    let short = Form::Pixels { width: 3, height: 1, channels: 3 };
    assert!(to(3, short, &rgb).is_err_and(|reason| reason.contains("6 bytes")));

    let jpeg = encode(corners(32, 32), ImageFormat::Jpeg);
    let colours = to(3, Form::Encoded, &jpeg).unwrap();
    let luma: Vec<u8> = colours.as_chunks::<3>().0.iter().map(|&p| luma(p)).collect();
    assert_eq!(to(1, Form::Encoded, &jpeg), Ok(luma));
    let opaque = to(4, Form::Encoded, &jpeg).unwrap();
    assert!(
        opaque
            .as_chunks::<4>()
            .0
            .iter()
            .zip(colours.as_chunks::<3>().0)
            .all(|(&[r, g, b, a], &rgb)| [r, g, b] == rgb && a == 255)
    );
}
