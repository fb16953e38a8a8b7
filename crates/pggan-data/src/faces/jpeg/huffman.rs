//! Huffman codes, and the bits they are in.

/// Codes of up to this many bits are found in one step.
const QUICK: u32 = 9;

/// A table of codes.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// By the next bits: length and value; length 0 for longer codes.
    quick: Vec<(u8, u8)>,
    /// By length: one above the largest code, left-aligned in 16 bits, and what leads from a code to its value.
    ends: [u32; 17],
    offsets: [i32; 17],
    values: Vec<u8>,
}

impl Table {
    /// `counts`: codes of each length from 1 on.
    pub(super) fn new(counts: &[u8; 16], values: &[u8]) -> Result<Self, String> {
        let mut quick = vec![(0, 0); 1 << QUICK];
        let (mut ends, mut offsets) = ([0; 17], [0; 17]);
        let (mut code, mut place) = (0_u32, 0_usize);
        for (length, &count) in (1..=16_u32).zip(counts) {
            offsets[length as usize] = place as i32 - code as i32;
            for &value in values.get(place..place + count as usize).ok_or("a table of codes")? {
                if length <= QUICK {
                    let first = (code << (QUICK - length)) as usize;
                    let same = quick.get_mut(first..first + (1 << (QUICK - length)));
                    same.ok_or("a table of codes")?.fill((length as u8, value));
                }
                code += 1;
            }
            place += count as usize;
            if code > 1 << length {
                return Err("a table of codes has too many".into());
            }
            ends[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Ok(Self { quick, ends, offsets, values: values.into() })
    }
}

/// Reads bits of a scan, up to the next marker.
pub(super) struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    /// The next `count` bits, at the top; `padding` of them are behind the end.
    buffer: u64,
    count: u32,
    padding: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, buffer: 0, count: 0, padding: 0 }
    }

    fn fill(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([byte, ..]) if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                _ => {
                    self.padding += 8;
                    0
                }
            };
            self.buffer |= (byte as u64) << (56 - self.count);
            self.count += 8;
        }
    }

    fn skip(&mut self, bits: u32) {
        self.buffer <<= bits;
        self.count -= bits;
    }

    /// Whether more was read than there is.
    pub(super) fn is_over(&self) -> bool {
        self.padding > self.count
    }

    /// The next `bits`, at most 16.
    pub(super) fn take(&mut self, bits: u32) -> i32 {
        if bits == 0 {
            return 0;
        }
        if self.count < bits {
            self.fill();
        }
        let value = self.buffer >> (64 - bits);
        self.skip(bits);
        value as i32
    }

    /// The value of the next code.
    pub(super) fn symbol(&mut self, table: &Table) -> Result<u8, String> {
        if self.count < 16 {
            self.fill();
        }
        let (length, value) = table.quick[(self.buffer >> (64 - QUICK)) as usize];
        if length > 0 {
            self.skip(length as u32);
            return Ok(value);
        }
        let next = (self.buffer >> 48) as u32;
        let length = (QUICK as usize + 1..=16).find(|&length| next < table.ends[length]);
        let length = length.ok_or("a code that is in no table")?;
        let place = (next >> (16 - length)) as i32 + table.offsets[length];
        self.skip(length as u32);
        table.values.get(place as usize).copied().ok_or_else(|| "a code that is in no table".into())
    }

    /// A number of so many bits, whose upper half is positive and whose lower half is negative.
    pub(super) fn signed(&mut self, bits: u32) -> i32 {
        let value = self.take(bits);
        if bits > 0 && value < 1 << (bits - 1) { value - (1 << bits) + 1 } else { value }
    }

    /// Passes over a restart marker, which must be next.
    pub(super) fn restart(&mut self) -> Result<(), String> {
        if self.is_over() {
            return Err(super::CUT.into());
        }
        (self.buffer, self.count, self.padding) = (0, 0, 0);
        let rest = self.data.get(self.at..).unwrap_or_default();
        let skipped = rest.windows(2).position(|w| w[0] == 0xff && !matches!(w[1], 0 | 0xff));
        let at = self.at + skipped.ok_or(super::CUT)?;
        if !(0xd0..=0xd7).contains(&self.data[at + 1]) {
            return Err("a restart marker is missing".into());
        }
        self.at = at + 2;
        Ok(())
    }

    /// Bytes that were used.
    pub(super) fn end(&self) -> usize {
        self.at
    }
}
