//! JPEG exactly as libjpeg 8d decodes it, which CelebA-HQ's checksums ask for.
//!
//! Decoders differ in two things: in how the inverse transform rounds, and in how colours of half the resolution
//! are enlarged. From release 7 on libjpeg enlarges them in the transform itself, 8 coefficients to 16 samples, where all
//! others interpolate between samples. No crate does that. Here are: Huffman coded files of 8 bit, baseline and progressive,
//! grey, YCbCr and RGB. What else there is, is an error.
//!
//! Memory: 2 bytes for each coefficient and 4 for each pixel.

mod huffman;
mod idct;
mod scan;

use self::huffman::Table;
use self::idct::Transform;
use self::scan::Scan;

/// The most pixels of a file.
const MAX_PIXELS: usize = 1 << 26;

/// A decoded image, `[height, width, channels]`.
pub(crate) struct Image {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// 1 (grey) or 3 (RGB).
    pub(crate) channels: usize,
    pub(crate) pixels: Vec<u8>,
}

/// Whether these are the bytes of a JPEG file.
pub(crate) fn is_jpeg(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0xff, 0xd8, 0xff])
}

/// Decodes a file. The error is the reason for which it is bad.
pub(crate) fn decode(bytes: &[u8]) -> Result<Image, String> {
    let mut decoder = Decoder::default();
    decoder.read(bytes).map_err(|reason| format!("JPEG: {reason}"))?;
    let frame = decoder.frame.ok_or("JPEG: no frame")?;
    frame.finish(decoder.colours).map_err(|reason| format!("JPEG: {reason}"))
}

type Block = [i16; 64];
type Quantization = [u16; 64];

/// A plane of the image.
struct Component {
    id: u8,
    /// Samples across and down, relative to the others'.
    h: usize,
    v: usize,
    /// Number of its quantization table, and the table, from its first scan on.
    quantization: usize,
    table: Option<Quantization>,
    /// Blocks that have samples of the image, and all that are coded.
    blocks: (usize, usize),
    stride: usize,
    coefficients: Vec<Block>,
}

struct Frame {
    width: usize,
    height: usize,
    progressive: bool,
    max_h: usize,
    max_v: usize,
    components: Vec<Component>,
}

/// What the markers say of the colours.
#[derive(Default, Clone, Copy)]
struct Colours {
    jfif: bool,
    /// Adobe's transform.
    adobe: Option<u8>,
}

#[derive(Default)]
struct Decoder {
    quantization: [Option<Quantization>; 4],
    dc: [Option<Table>; 4],
    ac: [Option<Table>; 4],
    restart_interval: usize,
    colours: Colours,
    frame: Option<Frame>,
}

const CUT: &str = "cut off";

impl Decoder {
    fn read(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut at = 2;
        let mut scans = 0;
        loop {
            // Whatever stands before a marker is passed over.
            at += bytes.get(at..).ok_or(CUT)?.iter().position(|&b| b == 0xff).ok_or(CUT)?;
            while *bytes.get(at).ok_or(CUT)? == 0xff {
                at += 1;
            }
            let marker = bytes[at];
            at += 1;
            match marker {
                0 | 1 | 0xd0..=0xd8 => continue,
                0xd9 => break,
                _ => {}
            }
            let length = bytes.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]) as usize);
            let length = length.filter(|&length| length >= 2).ok_or("a segment without length")?;
            let segment = bytes.get(at + 2..at + length).ok_or(CUT)?;
            at += length;
            match marker {
                0xdb => self.quantization(segment)?,
                0xc4 => self.huffman(segment)?,
                0xdd => {
                    let interval = segment.first_chunk::<2>().ok_or(CUT)?;
                    self.restart_interval = u16::from_be_bytes(*interval) as usize;
                }
                0xe0 => self.colours.jfif |= segment.starts_with(b"JFIF\0"),
                0xee if segment.len() >= 12 && segment.starts_with(b"Adobe") => {
                    self.colours.adobe = Some(segment[11]);
                }
                0xc0..=0xc2 => {
                    if self.frame.is_some() {
                        return Err("two frames".into());
                    }
                    self.frame = Some(Frame::read(segment, marker == 0xc2)?);
                }
                0xc3 | 0xc5..=0xcf => return Err("neither baseline nor progressive".into()),
                0xda => {
                    // A progressive file could go on for ever.
                    scans += 1;
                    if scans > 500 {
                        return Err("too many scans".into());
                    }
                    at += self.scan(segment, &bytes[at..])?;
                }
                _ => {}
            }
        }
        if scans == 0 { Err("no scan".into()) } else { Ok(()) }
    }

    fn quantization(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let [what, rest @ ..] = segment {
            let wide = what >> 4 != 0;
            let size = if wide { 128 } else { 64 };
            let (values, behind) = rest.split_at_checked(size).ok_or(CUT)?;
            let slot = self.quantization.get_mut((what & 15) as usize).ok_or("a table's number")?;
            let mut table = [0; 64];
            for (i, &place) in ZIGZAG.iter().enumerate() {
                table[place as usize] = if wide {
                    u16::from_be_bytes([values[2 * i], values[2 * i + 1]])
                } else {
                    values[i] as u16
                };
            }
            *slot = Some(table);
            segment = behind;
        }
        Ok(())
    }

    fn huffman(&mut self, mut segment: &[u8]) -> Result<(), String> {
        while let [what, rest @ ..] = segment {
            let counts = rest.first_chunk::<16>().ok_or(CUT)?;
            let values: usize = counts.iter().map(|&count| count as usize).sum();
            let (values, behind) = rest[16..].split_at_checked(values).ok_or(CUT)?;
            let tables = if what >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            let slot = tables.get_mut((what & 15) as usize).ok_or("a table's number")?;
            *slot = Some(Table::new(counts, values)?);
            segment = behind;
        }
        Ok(())
    }

    /// Decodes a scan from `data`; returns how many bytes it has.
    fn scan(&mut self, segment: &[u8], data: &[u8]) -> Result<usize, String> {
        let frame = self.frame.as_mut().ok_or("a scan before the frame")?;
        let count = *segment.first().ok_or(CUT)? as usize;
        let selection = segment.get(1..1 + 2 * count).ok_or(CUT)?;
        let &[first, last, approximation] =
            segment.get(1 + 2 * count..).and_then(|rest| rest.first_chunk::<3>()).ok_or(CUT)?;
        let mut chosen: Vec<(usize, usize, usize)> = Vec::new();
        for pair in selection.chunks_exact(2) {
            let place = frame.components.iter().position(|component| component.id == pair[0]);
            let place = place.ok_or("a scan of an unknown component")?;
            if chosen.iter().any(|chosen| chosen.0 == place) {
                return Err("a component twice in a scan".into());
            }
            let component = &mut frame.components[place];
            if component.table.is_none() {
                let table = self.quantization.get(component.quantization).copied().flatten();
                component.table = Some(table.ok_or("no quantization table")?);
            }
            chosen.push((place, (pair[1] >> 4) as usize, (pair[1] & 15) as usize));
        }
        let scan = Scan {
            chosen: &chosen,
            dc: &self.dc,
            ac: &self.ac,
            restart_interval: self.restart_interval,
            band: if frame.progressive { (first as usize, last as usize) } else { (0, 63) },
            high: if frame.progressive { approximation >> 4 } else { 0 },
            low: if frame.progressive { approximation & 15 } else { 0 },
        };
        scan.decode(frame, data)
    }
}

impl Frame {
    fn read(segment: &[u8], progressive: bool) -> Result<Self, String> {
        let header = segment.first_chunk::<6>().ok_or(CUT)?;
        let height = u16::from_be_bytes([header[1], header[2]]) as usize;
        let width = u16::from_be_bytes([header[3], header[4]]) as usize;
        let count = header[5] as usize;
        if header[0] != 8 {
            return Err(format!("{} bits a sample", header[0]));
        }
        if width == 0 || height == 0 || width * height > MAX_PIXELS {
            return Err(format!("{width}x{height} pixels"));
        }
        if count != 1 && count != 3 {
            return Err(format!("{count} components"));
        }
        let factors = segment.get(6..6 + 3 * count).ok_or(CUT)?.chunks_exact(3);
        let factors: Vec<_> = factors
            .map(|c| (c[0], (c[1] >> 4) as usize, (c[1] & 15) as usize, c[2] as usize))
            .collect();
        if factors.iter().any(|&(_, h, v, _)| !(1..=4).contains(&h) || !(1..=4).contains(&v)) {
            return Err("sampling factors".into());
        }
        let max_h = factors.iter().map(|&(_, h, ..)| h).max().unwrap_or(1);
        let max_v = factors.iter().map(|&(_, _, v, _)| v).max().unwrap_or(1);
        let mcus = (width.div_ceil(8 * max_h), height.div_ceil(8 * max_v));
        let components = factors
            .into_iter()
            .map(|(id, h, v, quantization)| {
                let blocks = ((width * h).div_ceil(8 * max_h), (height * v).div_ceil(8 * max_v));
                let stride = mcus.0 * h;
                let coefficients = vec![[0; 64]; stride * mcus.1 * v];
                Component { id, h, v, quantization, table: None, blocks, stride, coefficients }
            })
            .collect();
        Ok(Self { width, height, progressive, max_h, max_v, components })
    }

    /// Coefficients to pixels.
    fn finish(self, colours: Colours) -> Result<Image, String> {
        let (width, height) = (self.width, self.height);
        let mut planes = Vec::new();
        for component in &self.components {
            planes.push(Plane::new(component, self.max_h, self.max_v)?);
        }
        let ids: Vec<u8> = self.components.iter().map(|component| component.id).collect();
        let mut pixels = Vec::with_capacity(planes.len() * width * height);
        let mut rows = vec![vec![0; width]; planes.len()];
        for y in 0..height {
            for (row, plane) in rows.iter_mut().zip(&planes) {
                plane.row(y, row);
            }
            match &rows[..] {
                [grey] => pixels.extend_from_slice(grey),
                [a, b, c] => {
                    let samples = a.iter().zip(b).zip(c).map(|((&a, &b), &c)| [a, b, c]);
                    if colours.is_rgb(&ids) {
                        pixels.extend(samples.flatten());
                    } else {
                        pixels.extend(samples.flat_map(rgb));
                    }
                }
                _ => return Err("neither 1 nor 3 components".into()),
            }
        }
        let channels = planes.len();
        Ok(Image { width: width as u32, height: height as u32, channels, pixels })
    }
}

impl Colours {
    /// Whether three components are red, green and blue: JFIF says no, then Adobe decides, then their names.
    fn is_rgb(self, ids: &[u8]) -> bool {
        !self.jfif
            && match self.adobe {
                Some(transform) => transform == 0,
                None => ids == b"RGB",
            }
    }
}

/// The samples of a component.
struct Plane {
    stride: usize,
    samples: Vec<u8>,
    /// Pixels to a sample.
    across: usize,
    down: usize,
}

impl Plane {
    fn new(component: &Component, max_h: usize, max_v: usize) -> Result<Self, String> {
        let table = component.table.as_ref().ok_or("a component without a scan")?;
        let Component { h, v, .. } = *component;
        if !max_h.is_multiple_of(h) || !max_v.is_multiple_of(v) {
            return Err("sampling factors that are no multiples".into());
        }
        // The transform doubles what it can; what is left is repeated.
        let (wide, high) = (max_h.is_multiple_of(2 * h), max_v.is_multiple_of(2 * v));
        let across = max_h / h / (1 + usize::from(wide));
        let down = max_v / v / (1 + usize::from(high));
        let transform = Transform { wide, high };
        let (w, h) = transform.size();
        let stride = component.blocks.0 * w;
        let mut samples = vec![0; stride * component.blocks.1 * h];
        for (row, strip) in samples.chunks_exact_mut(stride * h).enumerate() {
            for column in 0..component.blocks.0 {
                let block = &component.coefficients[row * component.stride + column];
                transform.apply(block, table, &mut strip[column * w..], stride);
            }
        }
        Ok(Self { stride, samples, across, down })
    }

    fn row(&self, y: usize, row: &mut [u8]) {
        let samples = &self.samples[y / self.down * self.stride..][..self.stride];
        if self.across == 1 {
            row.copy_from_slice(&samples[..row.len()]);
        } else {
            row.iter_mut().enumerate().for_each(|(x, to)| *to = samples[x / self.across]);
        }
    }
}

/// YCbCr of JFIF in 16 bits behind the point; each product is rounded for itself but green's, whose sum is.
fn rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (y as i32, cb as i32 - 128, cr as i32 - 128);
    let r = y + ((91_881 * cr + 32_768) >> 16);
    let g = y + ((32_768 - 22_554 * cb - 46_802 * cr) >> 16);
    let b = y + ((116_130 * cb + 32_768) >> 16);
    [r, g, b].map(|v| v.clamp(0, 255) as u8)
}

/// Where in a block the coefficients of a file belong.
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
