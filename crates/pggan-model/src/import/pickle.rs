//! A reader of Python's pickles that executes nothing.
//!
//! A pickle is a program for a small stack machine. This one runs its instructions as far as they build numbers, strings,
//! tuples, lists and dictionaries; an object is kept as the name of its class and the values it was made with. A class
//! that the caller does not expect ends the reading, so `os.system` is a name in an error message and nothing else.
//!
//! Every value comes from at least one byte of the input and lengths are checked against what is left of it, so memory
//! is bounded by the size of the file, whatever it says.

use std::collections::BTreeMap;

use super::ImportError;

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
    Bytes(Vec<u8>),
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
    let mut machine = Machine {
        bytes,
        at: 0,
        values: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: BTreeMap::new(),
        allowed,
    };
    let root = machine.run()?;
    Ok((Pickle { values: machine.values, root }, machine.at))
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
    allowed: &'a dyn Fn(&str, &str) -> bool,
}

impl<'a> Machine<'a> {
    #[expect(clippy::too_many_lines, reason = "one arm for each instruction")]
    fn run(&mut self) -> Result<Id, ImportError> {
        loop {
            let opcode = self.take(1)?[0];
            match opcode {
                b'.' => return self.pop(),
                // Protocol and frame.
                0x80 | 0x95 => {
                    self.take(if opcode == 0x80 { 1 } else { 8 })?;
                }
                b'(' => self.marks.push(self.stack.len()),
                b'0' => {
                    self.pop()?;
                }
                b'1' => {
                    self.pop_mark()?;
                }
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                b'N' => self.push(Value::None),
                0x88 | 0x89 => self.push(Value::Bool(opcode == 0x88)),
                b'I' => {
                    let value = match self.line()? {
                        "00" => Value::Bool(false),
                        "01" => Value::Bool(true),
                        text => Value::Int(self.parse(text)?),
                    };
                    self.push(value);
                }
                b'L' => {
                    let text = self.line()?;
                    let value = self.parse(text.trim_end_matches('L'))?;
                    self.push(Value::Int(value));
                }
                b'J' => {
                    let bytes = self.array()?;
                    self.push(Value::Int(i32::from_le_bytes(bytes).into()));
                }
                b'K' => {
                    let byte = self.take(1)?[0];
                    self.push(Value::Int(byte.into()));
                }
                b'M' => {
                    let bytes = self.array()?;
                    self.push(Value::Int(u16::from_le_bytes(bytes).into()));
                }
                0x8a | 0x8b => {
                    let len = if opcode == 0x8a { self.u8()? } else { self.u32()? };
                    let value = self.long(len)?;
                    self.push(value);
                }
                b'F' => {
                    let text = self.line()?;
                    let value = self.parse(text)?;
                    self.push(Value::Float(value));
                }
                b'G' => {
                    let bytes = self.array()?;
                    self.push(Value::Float(f64::from_be_bytes(bytes)));
                }
                // Strings of Python 2 may hold bytes, as numpy's arrays in old pickles do.
                b'T' | b'U' => {
                    let len = if opcode == b'U' { self.u8()? } else { self.u32()? };
                    let bytes = self.take(len)?;
                    self.push(match std::str::from_utf8(bytes) {
                        Ok(text) => Value::Str(text.to_owned()),
                        Err(_) => Value::Bytes(bytes.to_vec()),
                    });
                }
                b'S' => {
                    let text = self.line()?;
                    let quoted =
                        text.strip_prefix(['\'', '"']).and_then(|t| t.strip_suffix(['\'', '"']));
                    let Some(text) = quoted.filter(|text| !text.contains('\\')) else {
                        return Err(self.damaged("a string with escapes"));
                    };
                    self.push(Value::Str(text.to_owned()));
                }
                b'V' => {
                    let text = self.line()?.to_owned();
                    self.push(Value::Str(text));
                }
                b'X' | 0x8c | 0x8d => {
                    let len = match opcode {
                        b'X' => self.u32()?,
                        0x8c => self.u8()?,
                        _ => self.u64()?,
                    };
                    let bytes = self.take(len)?;
                    let Ok(text) = std::str::from_utf8(bytes) else {
                        return Err(self.damaged("a string that is no UTF-8"));
                    };
                    self.push(Value::Str(text.to_owned()));
                }
                b'B' | b'C' | 0x8e | 0x96 => {
                    let len = match opcode {
                        b'B' => self.u32()?,
                        b'C' => self.u8()?,
                        _ => self.u64()?,
                    };
                    let bytes = self.take(len)?.to_vec();
                    self.push(Value::Bytes(bytes));
                }
                b')' => self.push(Value::Tuple(Vec::new())),
                b']' => self.push(Value::List(Vec::new())),
                b'}' => self.push(Value::Dict(Vec::new())),
                b't' | b'l' => {
                    let items = self.pop_mark()?;
                    self.push(if opcode == b't' {
                        Value::Tuple(items)
                    } else {
                        Value::List(items)
                    });
                }
                b'd' => {
                    let items = self.pop_mark()?;
                    let pairs = self.pairs(&items)?;
                    self.push(Value::Dict(pairs));
                }
                0x85..=0x87 => {
                    let count = usize::from(opcode - 0x84);
                    let Some(first) = self.stack.len().checked_sub(count) else {
                        return Err(self.damaged("a tuple of too few values"));
                    };
                    let items = self.stack.split_off(first);
                    self.push(Value::Tuple(items));
                }
                b'a' => {
                    let item = self.pop()?;
                    self.extend(vec![item])?;
                }
                b'e' => {
                    let items = self.pop_mark()?;
                    self.extend(items)?;
                }
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.insert(vec![(key, value)])?;
                }
                b'u' => {
                    let items = self.pop_mark()?;
                    let pairs = self.pairs(&items)?;
                    self.insert(pairs)?;
                }
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.name(module.to_owned(), name.to_owned())?;
                }
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    match (&self.values[module.0], &self.values[name.0]) {
                        (Value::Str(module), Value::Str(name)) => {
                            let (module, name) = (module.clone(), name.clone());
                            self.name(module, name)?;
                        }
                        _ => return Err(self.damaged("a class without a name")),
                    }
                }
                b'R' | 0x81 => {
                    let (args, class) = (self.pop()?, self.pop()?);
                    self.object(class, args)?;
                }
                0x92 => {
                    let (_, args, class) = (self.pop()?, self.pop()?, self.pop()?);
                    self.object(class, args)?;
                }
                b'i' => {
                    let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                    let args = self.pop_mark()?;
                    self.name(module, name)?;
                    let class = self.pop()?;
                    self.push(Value::Tuple(args));
                    let args = self.pop()?;
                    self.object(class, args)?;
                }
                b'o' => {
                    let mut args = self.pop_mark()?;
                    if args.is_empty() {
                        return Err(self.damaged("an object without a class"));
                    }
                    let class = args.remove(0);
                    self.push(Value::Tuple(args));
                    let args = self.pop()?;
                    self.object(class, args)?;
                }
                b'b' => {
                    let (new, object) = (self.pop()?, self.top()?);
                    match &mut self.values[object.0] {
                        Value::Object { state, .. } => *state = Some(new),
                        _ => return Err(self.damaged("the state of something that is no object")),
                    }
                }
                b'P' => {
                    let text = self.line()?.to_owned();
                    self.push(Value::Str(text));
                    let id = self.pop()?;
                    self.push(Value::Persistent(id));
                }
                b'Q' => {
                    let id = self.pop()?;
                    self.push(Value::Persistent(id));
                }
                b'p' | b'q' | b'r' | 0x94 => {
                    let key = match opcode {
                        b'p' => {
                            let text = self.line()?;
                            self.parse(text)?
                        }
                        b'q' => self.u8()? as u64,
                        b'r' => self.u32()? as u64,
                        _ => self.memo.len() as u64,
                    };
                    let top = self.top()?;
                    self.memo.insert(key, top);
                }
                b'g' | b'h' | b'j' => {
                    let key: u64 = match opcode {
                        b'g' => {
                            let text = self.line()?;
                            self.parse(text)?
                        }
                        b'h' => self.u8()? as u64,
                        _ => self.u32()? as u64,
                    };
                    let Some(&id) = self.memo.get(&key) else {
                        return Err(self.damaged("a value that was never kept"));
                    };
                    self.stack.push(id);
                }
                _ => return Err(self.damaged(&format!("the instruction {opcode:#04x}"))),
            }
        }
    }

    fn damaged(&self, what: &str) -> ImportError {
        ImportError::Format(format!("its pickle has {what} before byte {}", self.at))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], ImportError> {
        let Some(bytes) = self.bytes[self.at..].get(..len) else {
            let reason =
                format!("its pickle ends too early: {len} more bytes wanted at byte {}", self.at);
            return Err(ImportError::Format(reason));
        };
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ImportError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<usize, ImportError> {
        Ok(usize::from(self.take(1)?[0]))
    }

    fn u32(&mut self) -> Result<usize, ImportError> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn u64(&mut self) -> Result<usize, ImportError> {
        let len = u64::from_le_bytes(self.array()?);
        usize::try_from(len).map_err(|_| self.damaged("a length that no memory has"))
    }

    /// A whole number of any size; one beyond `i64` is kept as its bytes.
    fn long(&mut self, len: usize) -> Result<Value, ImportError> {
        let bytes = self.take(len)?;
        if len > 8 {
            return Ok(Value::Bytes(bytes.to_vec()));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut all = [if negative { 0xFF } else { 0 }; 8];
        all[..len].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(all)))
    }

    fn line(&mut self) -> Result<&'a str, ImportError> {
        let rest = &self.bytes[self.at..];
        let Some(len) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(self.damaged("a line without an end"));
        };
        self.at += len + 1;
        std::str::from_utf8(&rest[..len]).map_err(|_| self.damaged("a line that is no text"))
    }

    fn parse<T: std::str::FromStr>(&self, text: &str) -> Result<T, ImportError> {
        text.trim().parse().map_err(|_| self.damaged("a number that is none"))
    }

    fn push(&mut self, value: Value) {
        self.values.push(value);
        self.stack.push(Id(self.values.len() - 1));
    }

    fn pop(&mut self) -> Result<Id, ImportError> {
        // What lies below an open mark is not ours to take.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.damaged("an instruction without its value"));
        }
        self.stack.pop().ok_or_else(|| self.damaged("an instruction without its value"))
    }

    fn top(&self) -> Result<Id, ImportError> {
        self.stack.last().copied().ok_or_else(|| self.damaged("an instruction without its value"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, ImportError> {
        match self.marks.pop() {
            Some(mark) if mark <= self.stack.len() => Ok(self.stack.split_off(mark)),
            _ => Err(self.damaged("an end without a beginning")),
        }
    }

    fn pairs(&self, items: &[Id]) -> Result<Vec<(Id, Id)>, ImportError> {
        if !items.len().is_multiple_of(2) {
            return Err(self.damaged("a key without a value"));
        }
        Ok(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), ImportError> {
        let list = self.top()?;
        match &mut self.values[list.0] {
            Value::List(list) => list.extend(items),
            _ => return Err(self.damaged("items of something that is no list")),
        }
        Ok(())
    }

    /// Entries of a dictionary. An ordered one is an object, of which they become the state.
    fn insert(&mut self, pairs: Vec<(Id, Id)>) -> Result<(), ImportError> {
        let mut dict = self.top()?;
        if let Value::Object { state, .. } = &self.values[dict.0] {
            if let Some(state) = *state {
                dict = state;
            } else {
                self.values.push(Value::Dict(Vec::new()));
                let new = Id(self.values.len() - 1);
                if let Value::Object { state, .. } = &mut self.values[dict.0] {
                    *state = Some(new);
                }
                dict = new;
            }
        }
        match &mut self.values[dict.0] {
            Value::Dict(entries) => entries.extend(pairs),
            _ => return Err(self.damaged("entries of something that is no dictionary")),
        }
        Ok(())
    }

    fn name(&mut self, module: String, name: String) -> Result<(), ImportError> {
        if !(self.allowed)(&module, &name) {
            return Err(ImportError::NotData { module, name });
        }
        self.push(Value::Global(module, name));
        Ok(())
    }

    fn object(&mut self, class: Id, args: Id) -> Result<(), ImportError> {
        if !matches!(self.values[class.0], Value::Global(..)) {
            return Err(self.damaged("an object without a class"));
        }
        self.push(Value::Object { class, args, state: None });
        Ok(())
    }
}
