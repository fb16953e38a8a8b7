//! The stack machine.

use std::collections::BTreeMap;

use super::cursor::{Cursor, Width};
use super::{Id, Value};
use crate::import::ImportError;

/// No file of weights comes near: the largest checkpoints have some ten thousand values.
const MAX_VALUES: usize = 1 << 20;

pub(super) struct Machine<'a> {
    input: Cursor<'a>,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Id>,
    /// Entries of ordered dictionaries, which are copies.
    copied: usize,
    allowed: &'a dyn Fn(&str, &str) -> bool,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8], allowed: &'a dyn Fn(&str, &str) -> bool) -> Self {
        Self {
            input: Cursor::new(bytes),
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            copied: 0,
            allowed,
        }
    }

    /// How many bytes have been read.
    pub(super) fn read(&self) -> usize {
        self.input.at()
    }

    pub(super) fn into_values(self) -> Vec<Value> {
        self.values
    }

    /// Runs to the end of the pickle; returns what it is of.
    pub(super) fn run(&mut self) -> Result<Id, ImportError> {
        loop {
            let opcode = self.input.take(1)?[0];
            if opcode == b'.' {
                return self.pop();
            }
            if !(self.plain(opcode)? || self.container(opcode)? || self.class(opcode)?) {
                self.bookkeeping(opcode)?;
            }
            // What repeats itself from a few bytes would fill all memory.
            let most = self.values.len().max(self.stack.len()).max(self.memo.len());
            if most.max(self.marks.len()).max(self.copied) > MAX_VALUES {
                return Err(self.damaged("more values than any file of weights"));
            }
        }
    }

    /// Values that are made of bytes alone. Whether the instruction was one of these, as in the next three.
    fn plain(&mut self, opcode: u8) -> Result<bool, ImportError> {
        let value = match opcode {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool(opcode == 0x88),
            b'I' => match self.input.line()? {
                "00" => Value::Bool(false),
                "01" => Value::Bool(true),
                text => Value::Int(self.input.parse(text)?),
            },
            b'L' => {
                let text = self.input.line()?;
                Value::Int(self.input.parse(text.trim_end_matches('L'))?)
            }
            b'J' => Value::Int(i32::from_le_bytes(self.input.array()?).into()),
            b'K' => Value::Int(self.input.take(1)?[0].into()),
            b'M' => Value::Int(u16::from_le_bytes(self.input.array()?).into()),
            0x8a => whole_number(self.input.counted(Width::One)?),
            0x8b => whole_number(self.input.counted(Width::Four)?),
            b'F' => {
                let text = self.input.line()?;
                Value::Float(self.input.parse(text)?)
            }
            b'G' => Value::Float(f64::from_be_bytes(self.input.array()?)),
            b'T' => text_or_bytes(self.input.counted(Width::Four)?),
            b'U' => text_or_bytes(self.input.counted(Width::One)?),
            b'S' => {
                let text = self.input.line()?;
                let quoted =
                    text.strip_prefix(['\'', '"']).and_then(|t| t.strip_suffix(['\'', '"']));
                match quoted.filter(|text| !text.contains('\\')) {
                    Some(text) => Value::Str(text.to_owned()),
                    None => return Err(self.damaged("a string with escapes")),
                }
            }
            b'V' => Value::Str(self.input.line()?.to_owned()),
            b'X' => self.text(Width::Four)?,
            0x8c => self.text(Width::One)?,
            0x8d => self.text(Width::Eight)?,
            b'B' => Value::Bytes(self.input.counted(Width::Four)?.into()),
            b'C' => Value::Bytes(self.input.counted(Width::One)?.into()),
            0x8e | 0x96 => Value::Bytes(self.input.counted(Width::Eight)?.into()),
            _ => return Ok(false),
        };
        self.push(value);
        Ok(true)
    }

    /// Tuples, lists and dictionaries.
    fn container(&mut self, opcode: u8) -> Result<bool, ImportError> {
        match opcode {
            b')' => self.push(Value::Tuple(Vec::new())),
            b']' => self.push(Value::List(Vec::new())),
            b'}' => self.push(Value::Dict(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Value::Tuple(items));
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Value::List(items));
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
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Classes by name, and objects: what would be called, kept as what it would be called with.
    fn class(&mut self, opcode: u8) -> Result<bool, ImportError> {
        match opcode {
            b'c' => {
                let (module, name) = (self.input.line()?, self.input.line()?);
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
                let (module, name) = (self.input.line()?, self.input.line()?);
                let args = self.pop_mark()?;
                self.name(module.to_owned(), name.to_owned())?;
                let class = self.pop()?;
                self.object_of(class, args)?;
            }
            b'o' => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return Err(self.damaged("an object without a class"));
                }
                let class = args.remove(0);
                self.object_of(class, args)?;
            }
            b'b' => {
                let (new, object) = (self.pop()?, self.top()?);
                match &mut self.values[object.0] {
                    // A dictionary keeps its entries; PyTorch gives it an attribute, `_metadata`, which is not needed.
                    Value::Object { state: Some(_), .. } => {}
                    Value::Object { state, .. } => *state = Some(new),
                    _ => return Err(self.damaged("the state of something that is no object")),
                }
            }
            b'P' => {
                let text = self.input.line()?.to_owned();
                self.push(Value::Str(text));
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Protocol, marks, the stack and the memo.
    fn bookkeeping(&mut self, opcode: u8) -> Result<(), ImportError> {
        match opcode {
            // Protocol and frame.
            0x80 | 0x95 => {
                self.input.take(if opcode == 0x80 { 1 } else { 8 })?;
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
            b'p' | b'q' | b'r' | 0x94 => {
                let key = match opcode {
                    b'p' => {
                        let text = self.input.line()?;
                        self.input.parse(text)?
                    }
                    b'q' => self.input.u8()? as u64,
                    b'r' => self.input.u32()? as u64,
                    _ => self.memo.len() as u64,
                };
                let top = self.top()?;
                self.memo.insert(key, top);
            }
            b'g' | b'h' | b'j' => {
                let key: u64 = match opcode {
                    b'g' => {
                        let text = self.input.line()?;
                        self.input.parse(text)?
                    }
                    b'h' => self.input.u8()? as u64,
                    _ => self.input.u32()? as u64,
                };
                let Some(&id) = self.memo.get(&key) else {
                    return Err(self.damaged("a value that was never kept"));
                };
                self.stack.push(id);
            }
            _ => return Err(self.damaged(&format!("the instruction {opcode:#04x}"))),
        }
        Ok(())
    }

    fn damaged(&self, what: &str) -> ImportError {
        self.input.damaged(what)
    }

    fn text(&mut self, width: Width) -> Result<Value, ImportError> {
        match std::str::from_utf8(self.input.counted(width)?) {
            Ok(text) => Ok(Value::Str(text.to_owned())),
            Err(_) => Err(self.damaged("a string that is no UTF-8")),
        }
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

    fn object_of(&mut self, class: Id, args: Vec<Id>) -> Result<(), ImportError> {
        self.push(Value::Tuple(args));
        let args = self.pop()?;
        self.object(class, args)
    }

    fn object(&mut self, class: Id, args: Id) -> Result<(), ImportError> {
        let Value::Global(_, name) = &self.values[class.0] else {
            return Err(self.damaged("an object without a class"));
        };
        // Python 2 hands an ordered dictionary its entries as an argument.
        let pairs = if name == "OrderedDict" { self.entries_in(args) } else { None };
        let state = pairs.map(|pairs| {
            self.copied += pairs.len();
            self.values.push(Value::Dict(pairs));
            Id(self.values.len() - 1)
        });
        self.push(Value::Object { class, args, state });
        Ok(())
    }

    /// The entries in a tuple of one list of pairs.
    fn entries_in(&self, args: Id) -> Option<Vec<(Id, Id)>> {
        let items = |id: Id| match &self.values[id.0] {
            Value::Tuple(items) | Value::List(items) => Some(&items[..]),
            _ => None,
        };
        let &[list] = items(args)? else { return None };
        let pair = |id: &Id| match *items(*id)? {
            [key, value] => Some((key, value)),
            _ => None,
        };
        items(list)?.iter().map(pair).collect()
    }
}

/// Strings of Python 2 may hold anything.
fn text_or_bytes(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::Str(text.to_owned()),
        Err(_) => Value::Bytes(bytes.into()),
    }
}

/// A whole number of any size; one beyond `i64` is kept as its bytes.
fn whole_number(bytes: &[u8]) -> Value {
    let mut all = match bytes.last() {
        Some(byte) if byte & 0x80 != 0 => [0xFF; 8],
        _ => [0; 8],
    };
    match all.get_mut(..bytes.len()) {
        Some(low) => low.copy_from_slice(bytes),
        None => return Value::Bytes(bytes.into()),
    }
    Value::Int(i64::from_le_bytes(all))
}
