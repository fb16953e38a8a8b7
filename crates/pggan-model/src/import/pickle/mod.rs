//! A reader of Python's pickles that executes nothing.
//!
//! A pickle is a program for a small stack machine. This one runs its instructions as far as they build numbers, strings,
//! tuples, lists and dictionaries; an object is kept as the name of its class and the values it was made with. A class
//! that the caller does not expect ends the reading, so `os.system` is a name in an error message and nothing else.
//!
//! Lengths are checked against what is left of the input, and there is an end to how many values a pickle may make, so
//! memory is bounded by the size of the file, whatever it says.

mod cursor;
mod machine;

use std::sync::Arc;

use self::machine::Machine;
use super::ImportError;

/// How protocols before the third write bytes: as text, and the function that turns it into bytes.
pub(super) const LATIN1: (&str, &str) = ("_codecs", "encode");

/// A value's place in its [`Pickle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id(usize);

/// A value; what is made of others names their places.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Bytes(Arc<[u8]>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function, by module and name.
    Global(String, String),
    /// What a class or function would make of arguments.
    Object {
        class: Id,
        args: Id,
        state: Option<Id>,
    },
    /// Something that lies outside the pickle.
    Persistent(Id),
}

/// An object by the name of its class, without the module.
pub(super) struct Object<'a> {
    pub(super) name: &'a str,
    pub(super) args: &'a [Id],
    pub(super) state: Option<Id>,
}

/// The values of one pickle.
#[derive(Debug)]
pub(super) struct Pickle {
    values: Vec<Value>,
    root: Id,
}

impl Pickle {
    pub(super) fn root(&self) -> Id {
        self.root
    }

    /// The places of all values.
    pub(super) fn ids(&self) -> impl Iterator<Item = Id> {
        (0..self.values.len()).map(Id)
    }

    pub(super) fn get(&self, id: Id) -> &Value {
        &self.values[id.0]
    }

    /// The entry of a dictionary, or of the dictionary that an object was made of.
    pub(super) fn entry(&self, id: Id, key: &str) -> Option<Id> {
        let entries = self.entries(id)?;
        entries.iter().find(|(k, _)| self.str(*k) == Some(key)).map(|(_, v)| *v)
    }

    /// The entries of a dictionary, an ordered one, or an object's attributes.
    pub(super) fn entries(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id) {
            Value::Dict(entries) => Some(entries),
            Value::Object { state: Some(state), .. } => match self.get(*state) {
                Value::Dict(entries) => Some(entries),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn str(&self, id: Id) -> Option<&str> {
        match self.get(id) {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, id: Id) -> Option<f64> {
        match *self.get(id) {
            Value::Int(i) => Some(i as f64),
            Value::Float(f) => Some(f),
            Value::Bool(b) => Some(f64::from(u8::from(b))),
            _ => None,
        }
    }

    pub(super) fn sequence(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// A tuple or list of numbers that are not negative.
    pub(super) fn sizes(&self, id: Id) -> Option<Vec<usize>> {
        let size = |id: &Id| match *self.get(*id) {
            Value::Int(i) => usize::try_from(i).ok(),
            _ => None,
        };
        self.sequence(id)?.iter().map(size).collect()
    }

    /// Bytes, in any of the ways that Python's versions have to pickle them.
    pub(super) fn bytes(&self, id: Id) -> Option<Arc<[u8]>> {
        match self.get(id) {
            Value::Bytes(bytes) => Some(bytes.clone()),
            // A string of Python 2 that happens to be text.
            Value::Str(text) => Some(text.as_bytes().into()),
            // Python 3 in the protocols of Python 2.
            Value::Object { class, args, .. } if self.global(*class) == Some(LATIN1) => {
                let text = self.str(*self.sequence(*args)?.first()?)?;
                text.chars().map(|c| u8::try_from(c).ok()).collect()
            }
            _ => None,
        }
    }

    pub(super) fn object(&self, id: Id) -> Option<Object<'_>> {
        let Value::Object { class, args, state } = self.get(id) else { return None };
        let (_, name) = self.global(*class)?;
        Some(Object { name, args: self.sequence(*args)?, state: *state })
    }

    /// Module and name of a class or function.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        match self.get(id) {
            Value::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }
}

/// Reads one pickle from the start of `bytes`; returns it and how many bytes it took. `allowed(module, name)` says which
/// classes and functions may be named.
///
/// # Errors
/// If it is damaged, or names something else.
pub(super) fn read(
    bytes: &[u8],
    allowed: &dyn Fn(&str, &str) -> bool,
) -> Result<(Pickle, usize), ImportError> {
    let mut machine = Machine::new(bytes, allowed);
    let root = machine.run()?;
    let read = machine.read();
    Ok((Pickle { values: machine.into_values(), root }, read))
}
