//! Arrays of numpy in pickles.

use super::ImportError;
use super::array::{Kind, View};
use super::pickle::{Id, Object, Pickle, Value};

/// Functions and classes that numpy's arrays and numbers are pickled with.
pub(super) fn allowed(module: &str, name: &str) -> bool {
    match module {
        "numpy" => name == "ndarray" || name == "dtype",
        // Their place has changed over the years.
        "numpy.core.multiarray" | "numpy._core.multiarray" => {
            name == "_reconstruct" || name == "scalar"
        }
        "numpy.core.numeric" | "numpy._core.numeric" => name == "_frombuffer",
        _ => false,
    }
}

impl Pickle {
    /// The array or number of numpy that a value would make; none if it is something else.
    ///
    /// # Errors
    /// If it holds no numbers, or is damaged.
    pub(super) fn array(&self, id: Id) -> Result<Option<View>, ImportError> {
        let damaged = || ImportError::Format("an array of numpy is damaged".to_owned());
        let Some(Object { name, args, state }) = self.object(id) else { return Ok(None) };
        let (shape, dtype, fortran, data) = match (name, args) {
            ("_reconstruct", _) => {
                let state = state.and_then(|state| self.sequence(state)).ok_or_else(damaged)?;
                let &[_version, shape, dtype, fortran, data] = state else { return Err(damaged()) };
                let fortran = self.number(fortran) == Some(1.0);
                (self.sizes(shape).ok_or_else(damaged)?, dtype, fortran, data)
            }
            ("scalar", &[dtype, data]) => (Vec::new(), dtype, false, data),
            ("_frombuffer", &[data, dtype, shape, order]) => {
                let fortran = self.str(order) == Some("F");
                (self.sizes(shape).ok_or_else(damaged)?, dtype, fortran, data)
            }
            _ => return Ok(None),
        };
        let kind = self.dtype(dtype)?;
        View::all(self.bytes(data).ok_or_else(damaged)?, kind, shape, fortran).map(Some)
    }

    fn dtype(&self, id: Id) -> Result<Kind, ImportError> {
        let Some(Object { name: "dtype", args: &[name, ..], state }) = self.object(id) else {
            return Err(ImportError::Format("an array of numpy without a type".to_owned()));
        };
        let name = self.str(name).unwrap_or_default();
        // The state has the order of bytes in its second place.
        let order = state.and_then(|state| self.str(*self.sequence(state)?.get(1)?));
        let kind = match name.trim_start_matches(['<', '|', '=']) {
            "f8" => Kind::F64,
            "f4" => Kind::F32,
            "f2" => Kind::F16,
            "i8" => Kind::I64,
            "i4" => Kind::I32,
            "u1" => Kind::U8,
            _ => return Err(ImportError::Unsupported(format!("numpy's type {name:?}"))),
        };
        match order {
            Some(">") => {
                Err(ImportError::Unsupported("numbers with the largest byte first".to_owned()))
            }
            _ => Ok(kind),
        }
    }

    /// An array, or a number in any of its forms.
    pub(super) fn numeric(&self, id: Id) -> Option<f64> {
        self.number(id).or_else(|| self.array(id).ok()??.number())
    }

    /// The elements of a list or tuple, or nothing.
    pub(super) fn items(&self, id: Id) -> &[Id] {
        match self.get(id) {
            Value::List(items) | Value::Tuple(items) => items,
            _ => &[],
        }
    }
}
