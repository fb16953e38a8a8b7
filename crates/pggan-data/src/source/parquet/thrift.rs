//! Thrift's compact protocol, in which a Parquet file says where everything is.

use crate::tfrecord::next_varint;

/// No content of a field lies that deep.
const MAX_DEPTH: usize = 32;

/// What is left of data in Thrift's compact protocol. Nothing in it can be read where it is damaged.
pub(super) struct Thrift<'a>(pub(super) &'a [u8]);

impl<'a> Thrift<'a> {
    fn bytes(&mut self, count: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    fn number(&mut self) -> Option<u64> {
        next_varint(&mut self.0)
    }

    pub(super) fn integer(&mut self) -> Option<i64> {
        self.number().map(|number| (number >> 1) as i64 ^ -((number & 1) as i64))
    }

    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()?;
        self.bytes(length)
    }

    /// The fields of a structure, whose contents `field` reads: their numbers and kinds.
    pub(super) fn fields(
        &mut self,
        mut field: impl FnMut(&mut Self, i64, u8) -> Option<()>,
    ) -> Option<()> {
        let mut id = 0_i64;
        loop {
            let head = self.bytes(1)?[0];
            let kind = head & 0xF;
            if kind == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.integer()?,
                step => id.saturating_add(step.into()),
            };
            field(self, id, kind)?;
        }
    }

    /// The head of a list: its length and the kind of what is in it.
    pub(super) fn list(&mut self) -> Option<(u64, u8)> {
        let head = self.bytes(1)?[0];
        let length = match head >> 4 {
            15 => self.number()?,
            length => length.into(),
        };
        Some((length, head & 0xF))
    }

    /// What is in a list of structures, each of which `item` reads.
    pub(super) fn each(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let (length, _) = self.list()?;
        (0..length).try_for_each(|_| item(self))
    }

    /// Passes over the content of a field.
    pub(super) fn skip(&mut self, kind: u8) -> Option<()> {
        self.skip_within(kind, MAX_DEPTH)
    }

    fn skip_within(&mut self, kind: u8, depth: usize) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            // Truth is told by the kind.
            1 | 2 => {}
            3 => drop(self.bytes(1)?),
            4..=6 => drop(self.number()?),
            7 => drop(self.bytes(8)?),
            8 => drop(self.string()?),
            9 | 10 => {
                let (length, kind) = self.list()?;
                for _ in 0..length {
                    // In a list truth takes a byte.
                    self.skip_within(if kind < 3 { 3 } else { kind }, depth)?;
                }
            }
            12 => self.fields(|this, _, kind| this.skip_within(kind, depth))?,
            _ => return None,
        }
        Some(())
    }
}
