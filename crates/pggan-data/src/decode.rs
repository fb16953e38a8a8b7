//! Bytes of an image to upright pixels of 1 (grey), 3 (RGB) or 4 (RGBA) channels, whatever they were.
//!
//! - The format is told by the content: PNG, JPEG, WebP, GIF (first frame), BMP. Or the bytes are pixels
//!   already: see [`Form`].
//! - Grey becomes RGB with three equal channels, RGB becomes grey by the luma of ITU-R 601 as Pillow
//!   computes it; 16 bit is rounded to 8; CMYK JPEGs are read as Adobe writes them, like Pillow does.
//! - With 1 or 3 channels transparency is composited on a background colour (`c·a + background·(1 − a)`,
//!   rounded); with 4 it is kept, and what has none is opaque.
//! - EXIF orientation is applied. RGB of another ICC profile is turned into sRGB.
//! - JPEG is decoded strictly: a file that is cut off or corrupt inside is bad, not grey at the bottom.
//!
//! Memory: headers are checked before anything is allocated. An image has at most [`MAX_PIXELS`] pixels
//! and [`MAX_BYTES`] bytes decoded, and of those above 64 MiB only one is in memory at a time, over all
//! threads.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use image::metadata::Orientation;
use image::{
    ColorType, DynamicImage, GrayImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage,
    RgbaImage,
};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::icc::ToSrgb;

/// The most pixels an image may have.
pub const MAX_PIXELS: u64 = 1 << 27;
/// The most bytes an image may need once decoded, in the colour type of the file.
pub const MAX_BYTES: u64 = 8 * MAX_PIXELS;
/// The most pixels along a side.
const MAX_SIDE: u32 = 65_535;
/// Decoded images above this many bytes take turns.
const LARGE_BYTES: u64 = 64 << 20;
static LARGE: Mutex<()> = Mutex::new(());

/// What the bytes of an image are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A file of one of the formats.
    Encoded,
    /// Pixels, `[height, width, channels]`: grey (1), grey and alpha (2), RGB (3) or RGBA (4).
    Pixels {
        /// Pixels in a row.
        width: u32,
        /// Rows.
        height: u32,
        /// Bytes a pixel.
        channels: usize,
    },
}

/// An upright 8 bit image, rows from the top, `[height, width, channels]`.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// 1 (grey), 3 (RGB) or 4 (RGBA).
    pub channels: usize,
    /// `channels · width · height` bytes.
    pub pixels: &'a [u8],
}

/// Width and height of an image as it is shown, that is after its EXIF orientation.
///
/// Reads the header only; `bytes` may be a beginning of the file, then an error says little. The error is
/// the reason for which the file is bad.
pub fn dimensions(form: Form, bytes: &[u8]) -> Result<(u32, u32), String> {
    if let Form::Pixels { width, height, .. } = form {
        return Ok((width, height));
    }
    if let Some(dimensions) = plain_jpeg(bytes) {
        return Ok(dimensions);
    }
    guarded(|| {
        let Opened { width, height, orientation, .. } = Opened::read(bytes)?;
        Ok(if swaps_sides(orientation) { (height, width) } else { (width, height) })
    })
}

/// Decodes images into buffers that it keeps from one to the next.
#[derive(Debug)]
pub struct Decoder {
    channels: usize,
    background: [u8; 3],
    as_stored: bool,
    to_srgb: ToSrgb,
    raw: Vec<u8>,
    pixels: Vec<u8>,
}

impl Decoder {
    /// A decoder to `channels` (1, 3 or 4) that composites transparent images on `background` (RGB).
    pub fn new(channels: usize, background: [u8; 3]) -> Self {
        let (raw, pixels) = (Vec::new(), Vec::new());
        let (as_stored, to_srgb) = (false, ToSrgb::default());
        Self { channels, background, as_stored, to_srgb, raw, pixels }
    }

    /// Leaves images as they lie in their files: EXIF and ICC profiles are passed over, as Pillow does.
    pub(crate) fn unturned(self) -> Self {
        Self { as_stored: true, ..self }
    }

    /// Decodes `bytes`, which are of `form`, and hands the picture to `then`.
    ///
    /// The error is the reason for which the file is bad.
    pub fn decode<T>(
        &mut self,
        form: Form,
        bytes: &[u8],
        then: impl FnOnce(Picture<'_>) -> T,
    ) -> Result<T, String> {
        if let Form::Pixels { width, height, channels } = form {
            if bytes.len() as u64 != width as u64 * height as u64 * channels as u64 {
                let length = bytes.len();
                return Err(format!(
                    "{length} bytes are not {width}x{height} pixels of {channels}"
                ));
            }
            self.convert(bytes, width, height, colour_type(channels)?)?;
            return Ok(then(self.picture((width, height))));
        }
        let opened = guarded(|| Opened::read(bytes))?;
        let large = opened.bytes > LARGE_BYTES;
        // A panic elsewhere leaves nothing half done behind this lock.
        let _turn = large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
        let result = guarded(|| self.file(opened)).map(|size| then(self.picture(size)));
        if large || result.is_err() {
            (self.raw, self.pixels) = (Vec::new(), Vec::new());
        }
        result
    }

    fn picture(&self, (width, height): (u32, u32)) -> Picture<'_> {
        Picture { width, height, channels: self.channels, pixels: &self.pixels }
    }

    /// Fills `self.pixels` from an encoded file; returns width and height.
    fn file(&mut self, opened: Opened<'_>) -> Result<(u32, u32), String> {
        let Opened { format, width, height, bytes, orientation } = opened;
        let size = width as usize * height as usize * self.channels;
        let color = match &format {
            Format::Jpeg(_) => ColorType::Rgb8,
            Format::Other(decoder) => decoder.color_type(),
        };
        let direct = (color, self.channels) == (ColorType::Rgb8, 3);
        let mut buffer = std::mem::take(if direct { &mut self.pixels } else { &mut self.raw });
        buffer.resize(if direct { size } else { bytes as usize }, 0);
        let profile = match format {
            Format::Jpeg(mut jpeg) => {
                jpeg.decode_into(&mut buffer).map_err(jpeg_reason)?;
                // That of a CMYK file is for CMYK, which is gone.
                jpeg.icc_profile().filter(|_| {
                    !matches!(jpeg.input_colorspace(), Some(ColorSpace::CMYK | ColorSpace::YCCK))
                })
            }
            Format::Other(mut decoder) => {
                let profile = decoder.icc_profile().unwrap_or(None);
                decoder.read_image_boxed(&mut buffer).map_err(|error| error.to_string())?;
                profile
            }
        };
        if let Some(profile) = profile
            && !self.as_stored
        {
            self.to_srgb.apply(&profile, color, &mut buffer);
        }
        if direct {
            self.pixels = buffer;
        } else {
            self.convert(&buffer, width, height, color)?;
            self.raw = buffer;
        }
        if orientation == Orientation::NoTransforms || self.as_stored {
            return Ok((width, height));
        }
        let pixels = std::mem::take(&mut self.pixels);
        let image = match self.channels {
            1 => GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8),
            3 => RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8),
            _ => RgbaImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgba8),
        };
        let mut image = image.expect("the buffer was made for width x height");
        image.apply_orientation(orientation);
        let dimensions = (image.width(), image.height());
        self.pixels = image.into_bytes();
        Ok(dimensions)
    }

    /// Fills `self.pixels` from pixels of another colour type.
    fn convert(
        &mut self,
        raw: &[u8],
        width: u32,
        height: u32,
        color: ColorType,
    ) -> Result<(), String> {
        self.pixels.resize(width as usize * height as usize * self.channels, 0);
        let background = self.background;
        match self.channels {
            1 => each_pixel(raw, color, &mut self.pixels, |p| [luma(over(p, background))]),
            3 => each_pixel(raw, color, &mut self.pixels, |p| over(p, background)),
            _ => each_pixel(raw, color, &mut self.pixels, |p| p),
        }
    }
}

/// A file whose header has been read, and checked against the limits.
struct Opened<'a> {
    format: Format<'a>,
    width: u32,
    height: u32,
    /// Bytes that the decoder writes.
    bytes: u64,
    orientation: Orientation,
}

/// A decoder that is at the first pixel.
enum Format<'a> {
    Jpeg(Box<JpegDecoder<ZCursor<&'a [u8]>>>),
    Other(Box<dyn ImageDecoder + 'a>),
}

impl<'a> Opened<'a> {
    fn read(file: &'a [u8]) -> Result<Self, String> {
        let format = image::guess_format(file).map_err(|_| "its content is no image")?;
        let opened = match format {
            ImageFormat::Jpeg => {
                let mut decoder = Box::new(jpeg(file));
                decoder.decode_headers().map_err(jpeg_reason)?;
                let (width, height) = decoder.dimensions().ok_or("the header has no dimensions")?;
                let (width, height) = (width as u32, height as u32);
                let orientation =
                    decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
                let orientation = orientation.unwrap_or(Orientation::NoTransforms);
                let bytes = 3 * width as u64 * height as u64;
                Self { format: Format::Jpeg(decoder), width, height, bytes, orientation }
            }
            ImageFormat::Png | ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Bmp => {
                let mut decoder = decoder(file, format)?;
                let (width, height) = decoder.dimensions();
                let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
                let bytes = decoder.total_bytes();
                let format = Format::Other(Box::new(decoder));
                Self { format, width, height, bytes, orientation }
            }
            other => return Err(format!("{other:?} is not supported; convert it to PNG")),
        };
        let Self { width, height, bytes, .. } = opened;
        if width == 0 || height == 0 {
            return Err("it has no pixels".into());
        }
        if width as u64 * height as u64 > MAX_PIXELS || bytes > MAX_BYTES {
            return Err(format!(
                "{width}x{height} pixels are above the limit of {MAX_PIXELS} in all"
            ));
        }
        Ok(opened)
    }
}

/// Width and height of a JPEG that has no EXIF and is within the limits. Its decoder would build the Huffman tables too, in
/// more time than it takes to read a small file.
fn plain_jpeg(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut rest = bytes.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        let [0xFF, marker, high, low, ref behind @ ..] = *rest else { return None };
        let length = usize::from(u16::from_be_bytes([high, low])).checked_sub(2)?;
        let (body, next) = behind.split_at_checked(length)?;
        match marker {
            // The frame: baseline, extended or progressive.
            0xC0..=0xC2 => {
                let [8, y1, y0, x1, x0, ..] = *body else { return None };
                let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
                let (width, height) = (side(x1, x0), side(y1, y0));
                let pixels = u64::from(width) * u64::from(height);
                return (1..=MAX_PIXELS).contains(&pixels).then_some((width, height));
            }
            0xE1 if body.starts_with(b"Exif") => return None,
            // Tables, notes of applications, comments.
            0xC4 | 0xDB | 0xDD | 0xE0..=0xEF | 0xFE => rest = next,
            _ => return None,
        }
    }
}

fn decoder(bytes: &[u8], format: ImageFormat) -> Result<impl ImageDecoder + '_, String> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    reader.into_decoder().map_err(|error| error.to_string())
}

fn jpeg(bytes: &[u8]) -> JpegDecoder<ZCursor<&[u8]>> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_SIDE as usize)
        .set_max_height(MAX_SIDE as usize)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    JpegDecoder::new_with_options(ZCursor::new(bytes), options)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
fn jpeg_reason(error: zune_jpeg::errors::DecodeErrors) -> String {
    format!("JPEG: {}", format!("{error:?}").trim_matches('"'))
}

/// Decoders are fed hostile files; should one panic, the file is bad and the work goes on.
fn guarded<T>(decode: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    // All that a panic can leave half written is a buffer which is not read after an error.
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err("the decoder panicked".into()))
}

fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate90, Rotate90FlipH, Rotate270, Rotate270FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

fn colour_type(channels: usize) -> Result<ColorType, String> {
    match channels {
        1 => Ok(ColorType::L8),
        2 => Ok(ColorType::La8),
        3 => Ok(ColorType::Rgb8),
        4 => Ok(ColorType::Rgba8),
        _ => Err(format!("pixels of {channels} channels")),
    }
}

/// Turns pixels, as `image`'s decoders yield them, into pixels of `C` channels by way of RGBA.
fn each_pixel<const C: usize>(
    raw: &[u8],
    color: ColorType,
    out: &mut [u8],
    finish: impl Fn([u8; 4]) -> [u8; C],
) -> Result<(), String> {
    match color {
        ColorType::L8 => map(raw, out, |[l]| finish([l, l, l, 255])),
        ColorType::La8 => map(raw, out, |[l, a]| finish([l, l, l, a])),
        ColorType::Rgb8 => map(raw, out, |[r, g, b]| finish([r, g, b, 255])),
        ColorType::Rgba8 => map(raw, out, finish),
        ColorType::L16 => map(raw, out, |s: [u8; 2]| {
            let [l] = narrow(s);
            finish([l, l, l, 255])
        }),
        ColorType::La16 => map(raw, out, |s: [u8; 4]| {
            let [l, a] = narrow(s);
            finish([l, l, l, a])
        }),
        ColorType::Rgb16 => map(raw, out, |s: [u8; 6]| {
            let [r, g, b] = narrow(s);
            finish([r, g, b, 255])
        }),
        ColorType::Rgba16 => map(raw, out, |s: [u8; 8]| finish(narrow(s))),
        other => {
            return Err(format!("colour type {other:?} is not supported; convert it to 8 bit"));
        }
    }
    Ok(())
}

fn map<const N: usize, const C: usize>(
    raw: &[u8],
    out: &mut [u8],
    pixel: impl Fn([u8; N]) -> [u8; C],
) {
    for (to, &from) in out.as_chunks_mut::<C>().0.iter_mut().zip(raw.as_chunks::<N>().0) {
        *to = pixel(from);
    }
}

/// 16 bit samples in native byte order, rounded to 8 bit.
fn narrow<const N: usize, const C: usize>(samples: [u8; N]) -> [u8; C] {
    std::array::from_fn(|i| {
        let sample = u16::from_ne_bytes([samples[2 * i], samples[2 * i + 1]]);
        ((sample as u32 * 255 + 32_767) / 65_535) as u8
    })
}

/// An RGBA pixel over an opaque background, rounded.
fn over([r, g, b, a]: [u8; 4], background: [u8; 3]) -> [u8; 3] {
    let (color, a, rest) = ([r, g, b], a as u32, 255 - a as u32);
    std::array::from_fn(|i| ((color[i] as u32 * a + background[i] as u32 * rest + 127) / 255) as u8)
}

/// ITU-R 601 in 16 bit fixed point; equal channels stay what they are.
pub(crate) fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((19_595 * r as u32 + 38_470 * g as u32 + 7_471 * b as u32 + 0x8000) >> 16) as u8
}

#[cfg(test)]
mod tests;
