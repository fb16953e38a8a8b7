//! Numbers as files hold them. They are read when they are wanted, so that a file can say what it likes until then.

use std::sync::Arc;

use candle_core::{Device, Tensor};

use super::ImportError;

/// The types of numbers that files of weights have, least significant byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    U8,
}

impl Kind {
    pub(super) fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::U8 => 1,
        }
    }

    fn value(self, bytes: &[u8]) -> Option<f32> {
        Some(match self {
            Self::F64 => f64::from_le_bytes(bytes.try_into().ok()?) as f32,
            Self::F32 => f32::from_le_bytes(bytes.try_into().ok()?),
            Self::F16 => half::f16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
            Self::BF16 => half::bf16::from_le_bytes(bytes.try_into().ok()?).to_f32(),
            Self::I64 => i64::from_le_bytes(bytes.try_into().ok()?) as f32,
            Self::I32 => i32::from_le_bytes(bytes.try_into().ok()?) as f32,
            Self::U8 => f32::from(*bytes.first()?),
        })
    }
}

/// A tensor that has not been read yet.
#[derive(Clone, Debug)]
pub(super) struct View {
    data: Arc<[u8]>,
    kind: Kind,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

impl View {
    /// The tensor at `offset` of `data`, both it and `stride` counted in numbers.
    ///
    /// # Errors
    /// If it is larger than its data.
    pub(super) fn new(
        data: Arc<[u8]>,
        kind: Kind,
        offset: usize,
        shape: Vec<usize>,
        stride: Vec<usize>,
    ) -> Result<Self, ImportError> {
        let count = shape.iter().try_fold(1usize, |n, &s| n.checked_mul(s));
        let held = data.len() / kind.size();
        if shape.len() != stride.len() || count.is_none_or(|n| n > held) {
            return Err(ImportError::Format(format!(
                "a tensor of {shape:?} with {held} numbers behind it"
            )));
        }
        Ok(Self { data, kind, offset, shape, stride })
    }

    /// All of `data`, the last axis (or in Fortran's order the first) running fastest.
    ///
    /// # Errors
    /// As [`View::new`].
    pub(super) fn all(
        data: Arc<[u8]>,
        kind: Kind,
        shape: Vec<usize>,
        fortran: bool,
    ) -> Result<Self, ImportError> {
        let mut stride = vec![0; shape.len()];
        let mut step = 1usize;
        for i in 0..shape.len() {
            let axis = if fortran { i } else { shape.len() - 1 - i };
            stride[axis] = step;
            step = step.saturating_mul(shape[axis]);
        }
        Self::new(data, kind, 0, shape, stride)
    }

    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number, where there is one.
    pub(super) fn number(&self) -> Option<f64> {
        let [value] = self.values().ok()?[..] else { return None };
        Some(f64::from(value))
    }

    /// # Errors
    /// If it reaches beyond its data.
    pub(super) fn tensor(&self) -> Result<Tensor, ImportError> {
        Ok(Tensor::from_vec(self.values()?, &self.shape[..], &Device::Cpu)?)
    }

    fn values(&self) -> Result<Vec<f32>, ImportError> {
        let count = self.shape.iter().product();
        let mut values = Vec::with_capacity(count);
        let mut index = vec![0; self.shape.len()];
        for _ in 0..count {
            let mut steps = index.iter().zip(&self.stride);
            let at = steps
                .try_fold(self.offset, |at, (&i, &s)| at.checked_add(usize::checked_mul(i, s)?));
            values.push(at.and_then(|at| self.value(at)).ok_or_else(|| {
                ImportError::Format("a tensor reaches beyond its numbers".to_owned())
            })?);
            for axis in (0..self.shape.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(values)
    }

    fn value(&self, at: usize) -> Option<f32> {
        let start = at.checked_mul(self.kind.size())?;
        self.kind.value(self.data.get(start..start.checked_add(self.kind.size())?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(numbers: &[f32]) -> Arc<[u8]> {
        numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
    }

    #[test]
    fn both_orders_and_any_stride() {
        let data = bytes(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        let check = |view: View, expected: &[f32]| assert_eq!(view.values().unwrap(), expected);
        check(
            View::all(data.clone(), Kind::F32, vec![2, 3], false).unwrap(),
            &[0., 1., 2., 3., 4., 5.],
        );
        check(
            View::all(data.clone(), Kind::F32, vec![2, 3], true).unwrap(),
            &[0., 2., 4., 1., 3., 5.],
        );
        check(View::new(data.clone(), Kind::F32, 1, vec![2], vec![2]).unwrap(), &[1., 3.]);
        let beyond = View::new(data.clone(), Kind::F32, 4, vec![2], vec![2]).unwrap();
        assert!(beyond.tensor().is_err());
        assert!(View::all(data.clone(), Kind::F32, vec![7], false).is_err());
        let huge = View::new(data, Kind::F32, usize::MAX, vec![2], vec![usize::MAX]).unwrap();
        assert!(huge.tensor().is_err());
    }

    #[test]
    fn every_type_is_read() {
        let number = |data: &[u8], kind| {
            View::all(data.into(), kind, vec![], false).unwrap().number().unwrap()
        };
        assert_eq!(number(&1.5f64.to_le_bytes(), Kind::F64), 1.5);
        assert_eq!(number(&half::f16::from_f32(1.5).to_le_bytes(), Kind::F16), 1.5);
        assert_eq!(number(&half::bf16::from_f32(1.5).to_le_bytes(), Kind::BF16), 1.5);
        assert_eq!(number(&(-7i64).to_le_bytes(), Kind::I64), -7.0);
        assert_eq!(number(&(-7i32).to_le_bytes(), Kind::I32), -7.0);
        assert_eq!(number(&[200], Kind::U8), 200.0);
    }
}
