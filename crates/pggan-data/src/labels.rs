//! What images are of: a class each, or a vector of numbers each.
//!
//! A source gives each [`Entry`](crate::source::Entry) a [`Label`] or none; a store has [`Labels`], a row
//! for each image or none at all. As a network wants them, rows are `f32`: the vectors as they are,
//! classes one-hot, as in the `.labels` files of the paper's data sets.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// The most classes, or numbers in a vector.
pub const MAX_LABELS: usize = 1 << 16;

/// What one image is of.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// A class, counted from 0.
    Class(u32),
    /// Numbers, such as one for each attribute.
    Vector(Vec<f32>),
}

/// The labels of all images of a store, in their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    /// One of `count` classes each.
    Classes {
        /// How many classes there are.
        count: usize,
        /// The class of each image.
        of: Vec<u32>,
    },
    /// `width` numbers each.
    Vectors {
        /// Numbers in a row.
        width: usize,
        /// `[images, width]`.
        values: Vec<f32>,
    },
}

/// The form that labels have in common: what a source's labels become in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Classes(usize),
    Vectors(usize),
}

impl Scheme {
    /// What all `labels` have in common; none if there are none. There are at least `classes` classes. The
    /// error is why they do not fit together.
    pub(crate) fn of<'a>(
        labels: impl IntoIterator<Item = &'a Label>,
        classes: usize,
    ) -> Result<Option<Self>, String> {
        let mut scheme = None;
        for label in labels {
            let next = match (scheme, label) {
                (None, Label::Class(class)) => Self::Classes(classes.max(*class as usize + 1)),
                (Some(Self::Classes(count)), Label::Class(class)) => {
                    Self::Classes(count.max(*class as usize + 1))
                }
                (None, Label::Vector(vector)) => Self::Vectors(vector.len()),
                (Some(Self::Vectors(width)), Label::Vector(vector)) if vector.len() == width => {
                    Self::Vectors(width)
                }
                (Some(Self::Vectors(width)), Label::Vector(vector)) => {
                    return Err(format!("labels of {width} and of {} numbers", vector.len()));
                }
                _ => return Err("some labels are classes and some are vectors".into()),
            };
            scheme = Some(next);
        }
        match scheme {
            Some(Self::Vectors(0)) => Err("labels of no numbers".into()),
            Some(Self::Classes(width) | Self::Vectors(width)) if width > MAX_LABELS => Err(
                format!("{width} classes or numbers in a label; at most {MAX_LABELS} are allowed"),
            ),
            scheme => Ok(scheme),
        }
    }

    /// The table of `labels`, which are of this scheme.
    pub(crate) fn table<'a>(self, labels: impl IntoIterator<Item = &'a Label>) -> Labels {
        match self {
            Self::Classes(count) => {
                let class = |label: &Label| match label {
                    Label::Class(class) => Some(*class),
                    Label::Vector(_) => None,
                };
                Labels::Classes { count, of: labels.into_iter().filter_map(class).collect() }
            }
            Self::Vectors(width) => {
                let mut values = Vec::new();
                for label in labels {
                    if let Label::Vector(vector) = label {
                        values.extend_from_slice(vector);
                    }
                }
                Labels::Vectors { width, values }
            }
        }
    }
}

impl Labels {
    /// Numbers in a row: how many classes there are, or the length of the vectors.
    pub fn width(&self) -> usize {
        match self {
            Self::Classes { count, .. } => *count,
            Self::Vectors { width, .. } => *width,
        }
    }

    /// Rows.
    pub fn len(&self) -> usize {
        match self {
            Self::Classes { of, .. } => of.len(),
            Self::Vectors { width, values } => values.len() / width,
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The class of an image; none where labels are vectors.
    pub fn class(&self, index: u64) -> Option<u32> {
        match self {
            Self::Classes { of, .. } => of.get(index as usize).copied(),
            Self::Vectors { .. } => None,
        }
    }

    /// Appends the row of image `index`, [`width`](Self::width) numbers: one-hot, or the vector.
    ///
    /// Labels for generated images are rows of random images: their frequencies are the data's.
    ///
    /// # Panics
    /// If there is no such image.
    pub fn push_row(&self, index: u64, row: &mut Vec<f32>) {
        match self {
            Self::Classes { count, of } => {
                let start = row.len();
                row.resize(start + count, 0.0);
                row[start + of[index as usize] as usize] = 1.0;
            }
            Self::Vectors { width, values } => {
                row.extend_from_slice(&values[index as usize * width..][..*width]);
            }
        }
    }

    /// The images of each class; none where labels are vectors.
    pub fn by_class(&self) -> Option<Vec<Vec<u64>>> {
        let Self::Classes { count, of } = self else { return None };
        let mut classes = vec![Vec::new(); *count];
        for (index, &class) in of.iter().enumerate() {
            classes[class as usize].push(index as u64);
        }
        Some(classes)
    }

    /// Appends the rows of another table of the same form and width.
    pub(crate) fn append(&mut self, more: Self) {
        match (self, more) {
            (Self::Classes { of, .. }, Self::Classes { of: more, .. }) => of.extend(more),
            (Self::Vectors { values, .. }, Self::Vectors { values: more, .. }) => {
                values.extend(more);
            }
            _ => {}
        }
    }

    /// The bytes of `labels.safetensors`: "labels", I64 `[images]` or F32 `[images, width]`.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let (dtype, shape, data): (_, _, Vec<u8>) = match self {
            Self::Classes { of, .. } => (
                Dtype::I64,
                vec![of.len()],
                of.iter().flat_map(|&c| (c as i64).to_le_bytes()).collect(),
            ),
            Self::Vectors { width, values } => {
                let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                (Dtype::F32, vec![self.len(), *width], data)
            }
        };
        let view = TensorView::new(dtype, shape, &data).expect("the shape was made for the data");
        safetensors::serialize([("labels", view)], None).expect("one tensor always serializes")
    }

    /// Reads `labels.safetensors` of a store with `images` images and labels of `width`.
    ///
    /// The error is what is wrong with it.
    pub(crate) fn from_bytes(bytes: &[u8], images: u64, width: usize) -> Result<Self, String> {
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let tensor = tensors.tensor("labels").map_err(|error| error.to_string())?;
        let images = images as usize;
        match (tensor.dtype(), tensor.shape()) {
            (Dtype::I64, &[n]) if n == images => {
                let classes =
                    tensor.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b));
                let of = classes.map(|class| {
                    u32::try_from(class)
                        .ok()
                        .filter(|&class| (class as usize) < width)
                        .ok_or_else(|| format!("class {class} of {width}"))
                });
                Ok(Self::Classes { count: width, of: of.collect::<Result<_, _>>()? })
            }
            (Dtype::F32, &[n, w]) if n == images && w == width => {
                let values: Vec<f32> = tensor
                    .data()
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b))
                    .collect();
                if !values.iter().all(|value| value.is_finite()) {
                    return Err("a label is not finite".into());
                }
                Ok(Self::Vectors { width, values })
            }
            (dtype, shape) => {
                Err(format!("labels {dtype:?} {shape:?} do not fit {images} images with {width}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn labels() -> impl Strategy<Value = Vec<Label>> {
        let classes = prop::collection::vec((0..50_u32).prop_map(Label::Class), 1..40);
        let vectors = (1..6_usize).prop_flat_map(|width| {
            let vector = prop::collection::vec(-9.0..9.0_f32, width).prop_map(Label::Vector);
            prop::collection::vec(vector, 1..40)
        });
        prop_oneof![classes, vectors]
    }

    proptest! {
        #[test]
        fn tables_survive_their_bytes_and_rows_are_the_labels(labels in labels()) {
            let table = Scheme::of(&labels, 0).unwrap().unwrap().table(&labels);
            prop_assert_eq!(table.len(), labels.len());
            let read = Labels::from_bytes(&table.to_bytes(), labels.len() as u64, table.width());
            prop_assert_eq!(read.as_ref(), Ok(&table));
            for (index, label) in labels.iter().enumerate() {
                let mut row = vec![7.0];
                table.push_row(index as u64, &mut row);
                prop_assert_eq!(row.len(), 1 + table.width());
                match label {
                    Label::Vector(vector) => prop_assert_eq!(&row[1..], &vector[..]),
                    Label::Class(class) => {
                        prop_assert_eq!(row[1 + *class as usize], 1.0);
                        prop_assert_eq!(row[1..].iter().sum::<f32>(), 1.0);
                        prop_assert_eq!(table.class(index as u64), Some(*class));
                    }
                }
            }
        }

        #[test]
        fn damaged_bytes_are_never_taken_for_more_than_there_is(
            labels in labels(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let table = Scheme::of(&labels, 0).unwrap().unwrap().table(&labels);
            let mut bytes = table.to_bytes();
            *at.get_mut(&mut bytes) = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(read) = Labels::from_bytes(&bytes, labels.len() as u64, table.width()) {
                prop_assert_eq!((read.len(), read.width()), (table.len(), table.width()));
                (0..read.len()).for_each(|i| read.push_row(i as u64, &mut Vec::new()));
            }
        }
    }

    #[test]
    fn labels_that_do_not_fit_together() {
        use Label::{Class, Vector};
        for (labels, words) in [
            (vec![Class(1), Vector(vec![1.0])], "some labels are classes"),
            (vec![Vector(vec![1.0]), Vector(vec![1.0, 2.0])], "of 1 and of 2 numbers"),
            (vec![Vector(vec![])], "of no numbers"),
            (vec![Class(4_000_000_000)], "at most 65536"),
        ] {
            let reason = Scheme::of(&labels, 0).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        }
        assert_eq!(Scheme::of(&[], 0), Ok(None));
    }
}
