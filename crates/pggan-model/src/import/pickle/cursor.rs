//! The bytes of a pickle, taken one instruction's worth at a time.

use crate::import::ImportError;

pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes have been taken.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn damaged(&self, what: &str) -> ImportError {
        ImportError::Format(format!("its pickle has {what} before byte {}", self.at))
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], ImportError> {
        let Some(bytes) = self.bytes[self.at..].get(..len) else {
            let reason =
                format!("its pickle ends too early: {len} more bytes wanted at byte {}", self.at);
            return Err(ImportError::Format(reason));
        };
        self.at += len;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self) -> Result<usize, ImportError> {
        Ok(usize::from(self.take(1)?[0]))
    }

    pub(super) fn u32(&mut self) -> Result<usize, ImportError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(super) fn u64(&mut self) -> Result<usize, ImportError> {
        let len = u64::from_le_bytes(self.array()?);
        usize::try_from(len).map_err(|_| self.damaged("a length that no memory has"))
    }

    pub(super) fn line(&mut self) -> Result<&'a str, ImportError> {
        let rest = &self.bytes[self.at..];
        let Some(len) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.damaged("a line without an end"));
        };
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| self.damaged("a line that is no text"))
    }

    pub(super) fn parse<T: std::str::FromStr>(&self, text: &str) -> Result<T, ImportError> {
        text.trim().parse().map_err(|_| self.damaged("a number that is none"))
    }

    /// A string or bytes whose length comes first, in as many bytes as the instruction says.
    pub(super) fn counted(&mut self, width: Width) -> Result<&'a [u8], ImportError> {
        let len = match width {
            Width::One => self.u8()?,
            Width::Four => self.u32()?,
            Width::Eight => self.u64()?,
        };
        self.take(len)
    }
}

/// Bytes of a length.
#[derive(Clone, Copy)]
pub(super) enum Width {
    One,
    Four,
    Eight,
}
