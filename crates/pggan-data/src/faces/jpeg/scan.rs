//! The coefficients of a scan: all of a block at once, or, in progressive files, a band of them or one more bit.

use super::huffman::{Bits, Table};
use super::{Block, CUT, Frame, ZIGZAG};

pub(super) struct Scan<'a> {
    /// Components and their tables for DC and AC.
    pub(super) chosen: &'a [(usize, usize, usize)],
    pub(super) dc: &'a [Option<Table>; 4],
    pub(super) ac: &'a [Option<Table>; 4],
    /// Units between restart markers; 0 for none.
    pub(super) restart_interval: usize,
    /// First and last coefficient.
    pub(super) band: (usize, usize),
    /// The bit that was coded before, plus 1 (0: none), and the bit that this scan brings.
    pub(super) high: u8,
    pub(super) low: u8,
}

/// What goes from block to block.
#[derive(Default)]
struct Memory {
    /// The last DC of each component.
    dc: [i32; 4],
    /// Blocks still to come that have no more in this band.
    end_run: u32,
}

impl Scan<'_> {
    /// Decodes into the frame; returns how many bytes were used.
    pub(super) fn decode(&self, frame: &mut Frame, data: &[u8]) -> Result<usize, String> {
        let (first, last) = self.band;
        if self.chosen.is_empty()
            || first > last
            || last > 63
            || (first > 0 && self.chosen.len() > 1)
            || (frame.progressive && first == 0 && last > 0)
            || self.low > 13
        {
            return Err("a scan's parameters".into());
        }
        let mut bits = Bits::new(data);
        let mut memory = Memory::default();
        // A single component has no units but its blocks.
        let (wide, high) = match self.chosen {
            [(place, ..)] => frame.components[*place].blocks,
            _ => (frame.width.div_ceil(8 * frame.max_h), frame.height.div_ceil(8 * frame.max_v)),
        };
        for unit in 0..wide * high {
            if self.restart_interval > 0 && unit > 0 && unit % self.restart_interval == 0 {
                bits.restart()?;
                memory = Memory::default();
            }
            let (x, y) = (unit % wide, unit / wide);
            for &(place, dc, ac) in self.chosen {
                let component = &mut frame.components[place];
                let (h, v) =
                    if self.chosen.len() == 1 { (1, 1) } else { (component.h, component.v) };
                for (down, across) in (0..v).flat_map(|down| (0..h).map(move |h| (down, h))) {
                    let at = (y * v + down) * component.stride + x * h + across;
                    let block = &mut component.coefficients[at];
                    let tables = (self.dc.get(dc), self.ac.get(ac));
                    let tables =
                        (tables.0.and_then(Option::as_ref), tables.1.and_then(Option::as_ref));
                    self.block(&mut bits, tables, &mut memory, place, block, frame.progressive)?;
                }
            }
            if bits.is_over() {
                return Err(CUT.into());
            }
        }
        Ok(bits.end())
    }

    fn block(
        &self,
        bits: &mut Bits<'_>,
        (dc, ac): (Option<&Table>, Option<&Table>),
        memory: &mut Memory,
        place: usize,
        block: &mut Block,
        progressive: bool,
    ) -> Result<(), String> {
        const NONE: &str = "a scan without its table of codes";
        let (first, last) = self.band;
        if first == 0 {
            if self.high > 0 {
                block[0] |= (bits.take(1) << self.low) as i16;
                return Ok(());
            }
            let size = bits.symbol(dc.ok_or(NONE)?)?;
            if size > 15 {
                return Err("a code that is in no table".into());
            }
            memory.dc[place] = memory.dc[place].wrapping_add(bits.signed(size as u32));
            block[0] = (memory.dc[place] << self.low) as i16;
            if progressive {
                return Ok(());
            }
            return self.rest(bits, ac.ok_or(NONE)?, memory, block, 1, last);
        }
        let ac = ac.ok_or(NONE)?;
        if self.high > 0 {
            self.refine(bits, ac, memory, block)
        } else {
            self.rest(bits, ac, memory, block, first, last)
        }
    }

    /// The coefficients of a band.
    fn rest(
        &self,
        bits: &mut Bits<'_>,
        ac: &Table,
        memory: &mut Memory,
        block: &mut Block,
        first: usize,
        last: usize,
    ) -> Result<(), String> {
        if memory.end_run > 0 {
            memory.end_run -= 1;
            return Ok(());
        }
        let mut k = first;
        while k <= last {
            let symbol = bits.symbol(ac)?;
            let (run, size) = ((symbol >> 4) as usize, (symbol & 15) as u32);
            if size > 0 {
                k += run;
                let place = *ZIGZAG.get(k).filter(|_| k <= last).ok_or("a run beyond its block")?;
                block[place as usize] = (bits.signed(size) << self.low) as i16;
                k += 1;
            } else if run == 15 {
                k += 16;
            } else {
                memory.end_run = (1 << run) - 1;
                memory.end_run += bits.take(run as u32) as u32;
                break;
            }
        }
        Ok(())
    }

    /// One more bit of a band: of those that are not 0 yet in between, and of new ones.
    fn refine(
        &self,
        bits: &mut Bits<'_>,
        ac: &Table,
        memory: &mut Memory,
        block: &mut Block,
    ) -> Result<(), String> {
        let one = 1_i16 << self.low;
        let correct = |value: &mut i16, bits: &mut Bits<'_>| {
            if bits.take(1) == 1 && *value & one == 0 {
                *value = value.wrapping_add(if *value >= 0 { one } else { -one });
            }
        };
        let (mut k, last) = self.band;
        if memory.end_run == 0 {
            while k <= last {
                let symbol = bits.symbol(ac)?;
                let (mut run, size) = (symbol >> 4, symbol & 15);
                let mut new = 0;
                match size {
                    0 if run < 15 => {
                        memory.end_run = (1 << run) + bits.take(run as u32) as u32;
                        break;
                    }
                    0 => {}
                    1 => new = if bits.take(1) == 1 { one } else { -one },
                    _ => return Err("a code that is in no table".into()),
                }
                while k <= last {
                    let value = &mut block[ZIGZAG[k] as usize];
                    if *value != 0 {
                        correct(value, bits);
                    } else if run == 0 {
                        *value = new;
                        break;
                    } else {
                        run -= 1;
                    }
                    k += 1;
                }
                k += 1;
            }
        }
        if memory.end_run > 0 {
            for &place in ZIGZAG.iter().take(last + 1).skip(k) {
                let value = &mut block[place as usize];
                if *value != 0 {
                    correct(value, bits);
                }
            }
            memory.end_run -= 1;
        }
        Ok(())
    }
}
