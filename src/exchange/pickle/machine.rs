//! The instructions of pickles, protocols 2 to 5 (CPython's `pickletools` describes them), as far as PyTorch writes them.

use std::collections::HashMap;
use std::io::{self, Read};

use super::globals;
use super::value::{Global, Id, Value, Values};

/// More bytes than the pickles of a model with a hundred thousand tensors have: values lie elsewhere.
const LONGEST: u64 = 64 << 20;

/// A reader of one pickle.
struct Machine<R> {
    from: io::Take<R>,
    values: Values,
    stack: Vec<Id>,
    /// Lengths of the stack where marks lie.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

/// A pickle: its values, and the outermost of them.
#[derive(Debug)]
pub(super) struct Pickle {
    pub values: Values,
    pub root: Id,
}

/// A pickle that cannot be read.
#[derive(Debug)]
pub(super) enum Unreadable {
    Io(io::Error),
    Malformed(String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Unreadable::Malformed("its pickle is truncated".into()),
            _ => Unreadable::Io(error),
        }
    }
}

impl From<String> for Unreadable {
    fn from(reason: String) -> Self {
        Unreadable::Malformed(reason)
    }
}

impl From<&str> for Unreadable {
    fn from(reason: &str) -> Self {
        Unreadable::Malformed(reason.into())
    }
}

/// Reads one pickle, and nothing behind it.
pub(super) fn read(from: impl Read) -> Result<Pickle, Unreadable> {
    let mut machine = Machine {
        from: from.take(LONGEST),
        values: Values::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
    };
    loop {
        let [instruction] = machine.bytes()?;
        if instruction == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { values: machine.values, root });
        }
        machine.step(instruction)?;
    }
}

impl<R: Read> Machine<R> {
    fn step(&mut self, instruction: u8) -> Result<(), Unreadable> {
        match instruction {
            // A protocol and a frame change nothing.
            0x80 => self.bytes::<1>().map(drop),
            0x95 => self.bytes::<8>().map(drop),
            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'N' => self.push(Value::Unread),
            0x88 | 0x89 => self.push(Value::Bool(instruction == 0x88)),
            b'G' => {
                self.bytes::<8>()?;
                self.push(Value::Unread)
            }
            b'J' | b'K' | b'M' | 0x8a => self.number(instruction),
            b'X' | 0x8c | 0x8d | b'U' | b'T' | b'B' | b'C' => self.text(instruction),
            b')' | b']' | b'}' | b't' | b'l' | b'd' | 0x85..=0x87 => self.container(instruction),
            b'a' | b'e' | b's' | b'u' => self.fill(instruction),
            b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(instruction),
            b'0' => self.pop().map(drop),
            b'1' => self.popped_to_mark().map(drop),
            b'2' => {
                let top = *self.stack.last().ok_or("its stack is empty")?;
                self.push_id(top)
            }
            b'c' | 0x93 => self.global(instruction),
            b'R' | 0x81 | b'b' | b'Q' => self.object(instruction),
            other => Err(format!("an instruction that tensors do not need, 0x{other:02x}").into()),
        }
    }

    fn number(&mut self, instruction: u8) -> Result<(), Unreadable> {
        let value = match instruction {
            b'J' => i64::from(i32::from_le_bytes(self.bytes()?)),
            b'K' => i64::from(u8::from_le_bytes(self.bytes()?)),
            b'M' => i64::from(u16::from_le_bytes(self.bytes()?)),
            _ => {
                let [len] = self.bytes()?;
                let bytes = self.many(u64::from(len))?;
                if bytes.len() > 8 {
                    return self.push(Value::Long(bytes));
                }
                // Two's complement of any length.
                let fill = if bytes.last().is_some_and(|last| last & 0x80 != 0) { 0xff } else { 0 };
                let mut eight = [fill; 8];
                eight[..bytes.len()].copy_from_slice(&bytes);
                i64::from_le_bytes(eight)
            }
        };
        self.push(Value::Int(value))
    }

    fn text(&mut self, instruction: u8) -> Result<(), Unreadable> {
        let len = match instruction {
            0x8c | b'U' | b'C' => u64::from(u8::from_le_bytes(self.bytes()?)),
            0x8d => u64::from_le_bytes(self.bytes()?),
            _ => u64::from(u32::from_le_bytes(self.bytes()?)),
        };
        let bytes = self.many(len)?;
        match instruction {
            b'B' | b'C' => self.push(Value::Unread),
            _ => {
                let text = String::from_utf8(bytes).map_err(|_| "a text that is not UTF-8")?;
                self.push(Value::Text(text))
            }
        }
    }

    fn container(&mut self, instruction: u8) -> Result<(), Unreadable> {
        let value = match instruction {
            b')' => Value::Tuple(Vec::new()),
            b']' => Value::List(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b't' => Value::Tuple(self.popped_to_mark()?),
            b'l' => Value::List(self.popped_to_mark()?),
            b'd' => Value::Dict(pairs(&self.popped_to_mark()?)?),
            _ => {
                let len = usize::from(instruction - 0x84);
                let first = self.stack.len().checked_sub(len).filter(|first| *first >= self.floor());
                Value::Tuple(self.stack.split_off(first.ok_or("its stack is empty")?))
            }
        };
        self.push(value)
    }

    /// Adds elements to the list, or entries to the dictionary, below them.
    fn fill(&mut self, instruction: u8) -> Result<(), Unreadable> {
        let new = match instruction {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.popped_to_mark()?,
        };
        let into = *self.stack.last().ok_or("its stack is empty")?;
        match (instruction, self.values.get_mut(into)) {
            (b'a' | b'e', Value::List(elements)) => elements.extend(new),
            (b's' | b'u', Value::Dict(entries)) => entries.extend(pairs(&new)?),
            _ => return Err("elements of what is no list, or entries of what is no dictionary".into()),
        }
        Ok(())
    }

    fn remember(&mut self, instruction: u8) -> Result<(), Unreadable> {
        let place = match instruction {
            b'q' | b'h' => u32::from(u8::from_le_bytes(self.bytes()?)),
            b'r' | b'j' => u32::from_le_bytes(self.bytes()?),
            _ => self.memo.len() as u32,
        };
        match instruction {
            b'h' | b'j' => {
                let id = *self.memo.get(&place).ok_or("it reads a value that it has not stored")?;
                self.push_id(id)
            }
            _ => {
                let top = *self.stack.last().ok_or("its stack is empty")?;
                self.memo.insert(place, top);
                Ok(())
            }
        }
    }

    fn global(&mut self, instruction: u8) -> Result<(), Unreadable> {
        let (module, name) = match instruction {
            b'c' => (self.line()?, self.line()?),
            _ => {
                let (name, module) = (self.pop()?, self.pop()?);
                let text = |id| self.values.text(id).map(str::to_owned).ok_or("a name that is no text");
                (text(module)?, text(name)?)
            }
        };
        let global = globals::find(&module, &name)?;
        self.push(Value::Global(global))
    }

    /// Calls, objects and what lies outside.
    fn object(&mut self, instruction: u8) -> Result<(), Unreadable> {
        let top = self.pop()?;
        if instruction == b'Q' {
            let storage = globals::storage(&self.values, top)?;
            return self.push(Value::Storage(storage));
        }
        let below = self.pop()?;
        let id = match (instruction, self.values.get(below)) {
            (b'b', Value::Module(_)) => {
                *self.values.get_mut(below) = Value::Module(Some(top));
                below
            }
            // Attributes of dictionaries and tensors: versions of modules, and gradients' settings.
            (b'b', Value::Dict(_) | Value::Tensor(_)) => below,
            (0x81, Value::Global(Global::Module)) => self.values.add(Value::Module(None))?,
            (b'R', Value::Global(global)) => {
                let global = global.clone();
                let arguments = self.values.elements(top).ok_or("a call without arguments")?.to_vec();
                globals::call(&mut self.values, &global, &arguments)?
            }
            _ => return Err("an object of what is no class that tensors need".into()),
        };
        self.push_id(id)
    }

    fn push(&mut self, value: Value) -> Result<(), Unreadable> {
        let id = self.values.add(value)?;
        self.push_id(id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), Unreadable> {
        self.stack.push(id);
        Ok(())
    }

    /// Length of the stack below which the innermost mark lies.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, Unreadable> {
        match self.stack.len() > self.floor() {
            true => Ok(self.stack.pop().ok_or("its stack is empty")?),
            false => Err("its stack is empty".into()),
        }
    }

    fn popped_to_mark(&mut self) -> Result<Vec<Id>, Unreadable> {
        let mark = self.marks.pop().ok_or("a mark is missing")?;
        Ok(self.stack.split_off(mark))
    }

    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// As many bytes as a pickle says; memory is taken only for those that are there.
    fn many(&mut self, len: u64) -> Result<Vec<u8>, Unreadable> {
        let mut bytes = Vec::new();
        self.from.by_ref().take(len).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == len {
            true => Ok(bytes),
            false => Err("its pickle is truncated, or longer than any of a model".into()),
        }
    }

    /// A text up to the end of the line.
    fn line(&mut self) -> Result<String, Unreadable> {
        let mut line = Vec::new();
        loop {
            let [byte] = self.bytes()?;
            match byte {
                b'\n' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                _ if line.len() > 1000 => return Err("a name of more than 1,000 bytes".into()),
                byte => line.push(byte),
            }
        }
    }
}

fn pairs(values: &[Id]) -> Result<Vec<(Id, Id)>, Unreadable> {
    let (pairs, rest) = values.as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().map(|&[key, value]| (key, value)).collect()),
        _ => Err("a key without a value".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(pickle: &[u8]) -> String {
        match read(pickle) {
            Err(Unreadable::Malformed(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn calls_of_anything_else_are_refused_by_name() {
        assert!(refusal(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.").contains("`os.system`"));
        assert!(refusal(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.").contains("`os.system`"));
        assert!(refusal(b"\x80\x02cbuiltins\neval\n.").contains("`builtins.eval`"));
        assert!(refusal(b"\x80\x02ctorch\nload\n.").contains("`torch.load`"));
        assert!(refusal(b"\x80\x02cos\x1b[2J\nsystem\n.").contains("`os\\u{1b}[2J.system`"));
        // `INST` and `OBJ` call as well.
        assert!(refusal(b"\x80\x02(ios\nsystem\n.").contains("0x69"));
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for pickle in [
            &b""[..],
            b".",
            b"\x80",
            b"\x80\x02",
            b"R.",
            b"(.",
            b"u.",
            b"h\x01.",
            b"\x85.",
            b"(\x85.",
            b")R.",
        ] {
            refusal(pickle);
        }
        assert!(refusal(b"X\xff\xff\xff\xffabc").contains("truncated"));
        assert!(refusal(b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc").contains("truncated"));
        assert!(refusal(b"}K\x01a.").contains("no list"));
        assert!(refusal(b"}(K\x01u.").contains("without a value"));
    }

    #[test]
    fn numbers_are_of_any_length() {
        let int = |pickle: &[u8]| {
            let pickle = read(pickle).unwrap();
            pickle.values.get(pickle.root).clone()
        };
        assert_eq!(int(b"J\xff\xff\xff\xff."), Value::Int(-1));
        assert_eq!(int(b"\x8a\x00."), Value::Int(0));
        assert_eq!(int(b"\x8a\x02\x00\xff."), Value::Int(-256));
        assert_eq!(int(b"\x8a\x05\x00\x00\x00\x80\x00."), Value::Int(1 << 31));
        assert_eq!(int(b"M\xe9\x03."), Value::Int(1001));
    }

    #[test]
    fn what_holds_itself_ends() {
        // A list that is its own element, and one that is nested a million times.
        read(&b"]q\x00h\x00a."[..]).unwrap();
        let mut deep = vec![b']'; 1_000_000];
        deep.extend(vec![b'a'; 999_999]);
        deep.push(b'.');
        read(&deep[..]).unwrap();
        let endless = [vec![b')'; 5_000_000], vec![b'.']].concat();
        assert!(refusal(&endless).contains("values"));
    }
}
