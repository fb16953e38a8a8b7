//! Encoded bytes to upright RGB, whatever the format and colour type.
//!
//! - The format is told by the content: PNG, JPEG, WebP, GIF (first frame), BMP.
//! - Grey becomes RGB; 16 bit is rounded to 8; transparency is composited on a background colour
//!   (`c·a + background·(1 − a)`, rounded); CMYK JPEGs are read as Adobe writes them, like Pillow does.
//! - EXIF orientation is applied.
//! - JPEG is decoded strictly: a file that is cut off or corrupt inside is bad, not grey at the bottom.
//!
//! Memory: headers are checked before anything is allocated. An image has at most [`MAX_PIXELS`] pixels
//! and [`MAX_BYTES`] bytes decoded, and of those above 64 MiB only one is in memory at a time, over all
//! threads.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use image::metadata::Orientation;
use image::{ColorType, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// The most pixels an image may have.
pub const MAX_PIXELS: u64 = 1 << 27;
/// The most bytes an image may need once decoded, in the colour type of the file.
pub const MAX_BYTES: u64 = 8 * MAX_PIXELS;
/// The most pixels along a side.
const MAX_SIDE: u32 = 65_535;
/// Decoded images above this many bytes take turns.
const LARGE_BYTES: u64 = 64 << 20;
static LARGE: Mutex<()> = Mutex::new(());

/// An upright 8 bit RGB image, rows from the top, `[height, width, 3]`.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// `3 · width · height` bytes.
    pub rgb: &'a [u8],
}

/// Width and height of an encoded image as it is shown, that is after its EXIF orientation.
///
/// Reads the header only; `bytes` may be a beginning of the file, then an error says little. The error is
/// the reason for which the file is bad.
pub fn dimensions(bytes: &[u8]) -> Result<(u32, u32), String> {
    guarded(|| {
        let header = Header::read(bytes)?;
        let (width, height) = (header.width, header.height);
        Ok(if swaps_sides(header.orientation) { (height, width) } else { (width, height) })
    })
}

/// Decodes images into buffers that it keeps from one to the next.
#[derive(Debug)]
pub struct Decoder {
    background: [u8; 3],
    raw: Vec<u8>,
    rgb: Vec<u8>,
}

impl Decoder {
    /// A decoder that composites transparent images on `background` (RGB).
    pub fn new(background: [u8; 3]) -> Self {
        Self { background, raw: Vec::new(), rgb: Vec::new() }
    }

    /// Decodes `bytes` and hands the picture to `then`.
    ///
    /// The error is the reason for which the file is bad.
    pub fn decode<T>(
        &mut self,
        bytes: &[u8],
        then: impl FnOnce(Picture<'_>) -> T,
    ) -> Result<T, String> {
        let header = guarded(|| Header::read(bytes))?;
        let large = header.bytes > LARGE_BYTES;
        // A panic elsewhere leaves nothing half done behind this lock.
        let _turn = large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
        let result = guarded(|| self.pixels(bytes, &header))
            .map(|(width, height)| then(Picture { width, height, rgb: &self.rgb }));
        if large || result.is_err() {
            (self.raw, self.rgb) = (Vec::new(), Vec::new());
        }
        result
    }

    /// Fills `self.rgb`; returns width and height.
    fn pixels(&mut self, bytes: &[u8], header: &Header) -> Result<(u32, u32), String> {
        let (width, height) = (header.width, header.height);
        let pixels = width as usize * height as usize;
        self.rgb.resize(3 * pixels, 0);
        if header.format == ImageFormat::Jpeg {
            jpeg(bytes).decode_into(&mut self.rgb).map_err(jpeg_reason)?;
        } else {
            let decoder = decoder(bytes, header.format)?;
            let color = decoder.color_type();
            if color == ColorType::Rgb8 {
                decoder.read_image(&mut self.rgb).map_err(|error| error.to_string())?;
            } else {
                self.raw.resize(header.bytes as usize, 0);
                decoder.read_image(&mut self.raw).map_err(|error| error.to_string())?;
                to_rgb(&self.raw, color, self.background, &mut self.rgb)?;
            }
        }
        if header.orientation == Orientation::NoTransforms {
            return Ok((width, height));
        }
        let image = RgbImage::from_raw(width, height, std::mem::take(&mut self.rgb))
            .expect("the buffer was made for width x height");
        let mut image = DynamicImage::ImageRgb8(image);
        image.apply_orientation(header.orientation);
        let dimensions = (image.width(), image.height());
        self.rgb = image.into_bytes();
        Ok(dimensions)
    }
}

/// What a file says about itself, checked against the limits.
struct Header {
    format: ImageFormat,
    width: u32,
    height: u32,
    /// Bytes that the decoder writes.
    bytes: u64,
    orientation: Orientation,
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let format = image::guess_format(bytes).map_err(|_| "its content is no image")?;
        let header = match format {
            ImageFormat::Jpeg => {
                let mut decoder = jpeg(bytes);
                decoder.decode_headers().map_err(jpeg_reason)?;
                let (width, height) = decoder.dimensions().ok_or("the header has no dimensions")?;
                let (width, height) = (width as u32, height as u32);
                let orientation =
                    decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif));
                let orientation = orientation.unwrap_or(Orientation::NoTransforms);
                Self { format, width, height, bytes: 3 * width as u64 * height as u64, orientation }
            }
            ImageFormat::Png | ImageFormat::WebP | ImageFormat::Gif | ImageFormat::Bmp => {
                let mut decoder = decoder(bytes, format)?;
                let (width, height) = decoder.dimensions();
                let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
                Self { format, width, height, bytes: decoder.total_bytes(), orientation }
            }
            other => return Err(format!("{other:?} is not supported; convert it to PNG")),
        };
        let Self { width, height, bytes, .. } = header;
        if width == 0 || height == 0 {
            return Err("it has no pixels".into());
        }
        if width as u64 * height as u64 > MAX_PIXELS || bytes > MAX_BYTES {
            return Err(format!(
                "{width}x{height} pixels are above the limit of {MAX_PIXELS} in all"
            ));
        }
        Ok(header)
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

/// Turns what `image`'s decoders yield into RGB. 16 bit samples are in native byte order.
fn to_rgb(raw: &[u8], color: ColorType, background: [u8; 3], rgb: &mut [u8]) -> Result<(), String> {
    let narrow =
        |s: &[u8]| ((u16::from_ne_bytes([s[0], s[1]]) as u32 * 255 + 32_767) / 65_535) as u8;
    let (out, _) = rgb.as_chunks_mut::<3>();
    match color {
        ColorType::L8 => out.iter_mut().zip(raw).for_each(|(o, &l)| *o = [l; 3]),
        ColorType::La8 => {
            let pixels = out.iter_mut().zip(raw.as_chunks::<2>().0);
            pixels.for_each(|(o, &[l, a])| *o = over([l; 3], a, background));
        }
        ColorType::Rgb8 => rgb.copy_from_slice(raw),
        ColorType::Rgba8 => {
            let pixels = out.iter_mut().zip(raw.as_chunks::<4>().0);
            pixels.for_each(|(o, &[r, g, b, a])| *o = over([r, g, b], a, background));
        }
        ColorType::L16 => {
            out.iter_mut().zip(raw.chunks_exact(2)).for_each(|(o, s)| *o = [narrow(s); 3]);
        }
        ColorType::La16 => {
            let pixels = out.iter_mut().zip(raw.chunks_exact(4));
            pixels.for_each(|(o, s)| *o = over([narrow(s); 3], narrow(&s[2..]), background));
        }
        ColorType::Rgb16 => {
            let pixels = out.iter_mut().zip(raw.chunks_exact(6));
            pixels.for_each(|(o, s)| *o = [narrow(s), narrow(&s[2..]), narrow(&s[4..])]);
        }
        ColorType::Rgba16 => {
            let pixels = out.iter_mut().zip(raw.chunks_exact(8));
            pixels.for_each(|(o, s)| {
                *o = over(
                    [narrow(s), narrow(&s[2..]), narrow(&s[4..])],
                    narrow(&s[6..]),
                    background,
                );
            });
        }
        other => {
            return Err(format!("colour type {other:?} is not supported; convert it to 8 bit"));
        }
    }
    Ok(())
}

/// `color` with opacity `alpha` over `background`, rounded.
fn over(color: [u8; 3], alpha: u8, background: [u8; 3]) -> [u8; 3] {
    let (a, rest) = (alpha as u32, 255 - alpha as u32);
    std::array::from_fn(|i| ((color[i] as u32 * a + background[i] as u32 * rest + 127) / 255) as u8)
}

#[cfg(test)]
mod tests;
