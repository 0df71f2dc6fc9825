//! The stack machine of pickle, protocols 0 to 5, restricted to data.
//!
//! Opcodes: CPython's `pickletools.py`. Functions that are known: those that `torch.save` writes for tensors, parameters and ordered dicts.

use std::collections::HashMap;

use super::node::{Arena, Element, Id, Node, StorageInfo, TensorInfo};
use crate::{Error, Result};

/// What a pickle may hold on its stack and in its memo at one time.
const MOST_ITEMS: usize = 1 << 20;
/// Longest name of a class or storage, and most dimensions of a tensor: both are copied, so they must not grow with what is remembered.
const LONGEST_NAME: usize = 256;
const MOST_DIMENSIONS: usize = 16;

/// Reads one pickle from the start of `bytes` into `arena`; returns its object and how many bytes it took.
pub(super) fn run(bytes: &[u8], arena: &mut Arena) -> Result<(Id, usize)> {
    let (stack, marks, memo) = (Vec::new(), Vec::new(), HashMap::new());
    let mut machine = Machine { bytes, at: 0, arena, stack, marks, memo, copies: bytes.len() };
    let result = machine.run();
    let at = machine.at;
    match result {
        Ok(root) => Ok((root, at)),
        Err(error) => Err(error.context(format!("the pickle cannot be read at byte {at}"))),
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    arena: &'a mut Arena,
    stack: Vec<Id>,
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// How many members may still be copied from one object to another. No object of a state dict is copied twice, so the pickle's
    /// own size is enough; without a bound, a remembered list could be copied without end.
    copies: usize,
}

impl Machine<'_> {
    fn run(&mut self) -> Result<Id> {
        loop {
            if self.stack.len() > MOST_ITEMS || self.memo.len() > MOST_ITEMS || self.marks.len() > MOST_ITEMS
            {
                return Err(damaged("too many objects at one time"));
            }
            match self.byte()? {
                b'.' => return self.pop(),
                op => self.execute(op)?,
            }
        }
    }

    fn execute(&mut self, op: u8) -> Result<()> {
        match op {
            // Frames and protocol numbers only help readers of streams.
            0x80 => self.take(1).map(drop),
            0x95 => self.take(8).map(drop),

            b'(' => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            b'0' => {
                if self.marks.last() == Some(&self.stack.len()) {
                    self.marks.pop();
                    return Ok(());
                }
                self.pop().map(drop)
            }
            b'1' => self.pop_mark().map(drop),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                Ok(())
            }

            b'N' => self.push(Node::None),
            0x88 => self.push(Node::Bool(true)),
            0x89 => self.push(Node::Bool(false)),
            b'I' => match self.line()? {
                "01" => self.push(Node::Bool(true)),
                "00" => self.push(Node::Bool(false)),
                text => {
                    let number = text.trim().parse::<i64>();
                    self.push(number.map_or(Node::Bytes, Node::Int))
                }
            },
            b'L' => {
                let number = self.line()?.trim().trim_end_matches('L').parse::<i64>();
                self.push(number.map_or(Node::Bytes, Node::Int))
            }
            b'K' => self.number(1),
            b'M' => self.number(2),
            b'J' => {
                let number = i32::from_le_bytes(self.array()?);
                self.push(Node::Int(number.into()))
            }
            0x8a => {
                let length = self.byte()?.into();
                self.long(length)
            }
            0x8b => {
                let length = self.length(4)?;
                self.long(length)
            }
            b'F' => {
                self.line()?;
                self.push(Node::Float)
            }
            b'G' => {
                self.take(8)?;
                self.push(Node::Float)
            }

            b'S' => {
                let text = self.line()?.trim().trim_matches(['\'', '"']).to_owned();
                self.push(Node::String(text))
            }
            b'V' => {
                let text = self.line()?.to_owned();
                self.push(Node::String(text))
            }
            b'X' | b'T' => self.text(4),
            b'U' | 0x8c => self.text(1),
            0x8d => self.text(8),
            b'B' => self.raw(4),
            b'C' => self.raw(1),
            0x8e | 0x96 => self.raw(8),

            b')' => self.push(Node::Tuple(Vec::new())),
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items))
            }
            0x85..=0x87 => {
                let items = self.pop_some(usize::from(op) - 0x84)?;
                self.push(Node::Tuple(items))
            }
            b']' | 0x8f => self.push(Node::List(Vec::new())),
            // A frozen set is a tuple to us: something that is never filled later.
            0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items))
            }
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items))
            }
            b'}' => self.push(Node::Dict(Vec::new())),
            b'd' => {
                let pairs = pairs(self.pop_mark()?)?;
                self.push(Node::Dict(pairs))
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.extend(items)
            }
            b's' => {
                let items = self.pop_some(2)?;
                self.set(items)
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(items)
            }

            b'p' => {
                let index = self.line()?.trim().parse().map_err(|_| damaged("a memo number that is none"))?;
                self.remember(index)
            }
            b'q' => {
                let index = self.byte()?.into();
                self.remember(index)
            }
            b'r' => {
                let index = self.length(4)? as u64;
                self.remember(index)
            }
            0x94 => self.remember(self.memo.len() as u64),
            b'g' => {
                let index = self.line()?.trim().parse().map_err(|_| damaged("a memo number that is none"))?;
                self.recall(index)
            }
            b'h' => {
                let index = self.byte()?.into();
                self.recall(index)
            }
            b'j' => {
                let index = self.length(4)? as u64;
                self.recall(index)
            }

            b'c' => {
                let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                self.push(Node::Global(module, name))
            }
            0x93 => {
                let names = self.pop_some(2)?;
                match (self.arena.get(names[0]), self.arena.get(names[1])) {
                    (Node::String(module), Node::String(name))
                        if module.len() + name.len() <= LONGEST_NAME =>
                    {
                        let global = Node::Global(module.clone(), name.clone());
                        self.push(global)
                    }
                    _ => Err(damaged("a class whose name is no text, or too long")),
                }
            }
            b'R' | 0x81 => {
                let parts = self.pop_some(2)?;
                self.call(parts[0], parts[1])
            }
            0x92 => {
                let parts = self.pop_some(3)?;
                self.call(parts[0], parts[1])
            }
            b'o' => {
                let mut parts = self.pop_mark()?;
                if parts.is_empty() {
                    return Err(damaged("an object without a class"));
                }
                let class = parts.remove(0);
                let arguments = self.arena.add(Node::Tuple(parts))?;
                self.call(class, arguments)
            }
            b'i' => {
                let (module, name) = (self.line()?.to_owned(), self.line()?.to_owned());
                let parts = self.pop_mark()?;
                let class = self.arena.add(Node::Global(module, name))?;
                let arguments = self.arena.add(Node::Tuple(parts))?;
                self.call(class, arguments)
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)
            }
            b'P' => {
                self.line()?;
                self.push(Node::Opaque { class: "a persistent id".into(), state: None })
            }
            other => Err(damaged(&format!("operation {other:#04x} is none that a state dict needs"))),
        }
    }

    // Reading

    fn take(&mut self, n: usize) -> Result<&[u8]> {
        let end = self.at.checked_add(n).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| damaged("it ends in the middle"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    /// An unsigned little-endian number of `n` bytes.
    fn length(&mut self, n: usize) -> Result<usize> {
        let value = self.take(n)?.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
        usize::try_from(value).map_err(|_| damaged("a length beyond this machine"))
    }

    fn line(&mut self) -> Result<&str> {
        let rest = &self.bytes[self.at..];
        let end =
            rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("a line without an end"))?;
        self.at += end + 1;
        std::str::from_utf8(&rest[..end]).map_err(|_| damaged("text that is no UTF-8"))
    }

    fn number(&mut self, bytes: usize) -> Result<()> {
        let number = self.length(bytes)?;
        self.push(Node::Int(number as i64))
    }

    /// A whole number of `length` bytes in two's complement; none that we use has more than eight.
    fn long(&mut self, length: usize) -> Result<()> {
        let bytes = self.take(length)?;
        let node = if bytes.len() > 8 {
            Node::Bytes
        } else {
            let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
            let start = if negative { -1i64 } else { 0 };
            Node::Int(bytes.iter().rev().fold(start, |sum, byte| sum << 8 | i64::from(*byte)))
        };
        self.push(node)
    }

    fn text(&mut self, size: usize) -> Result<()> {
        let length = self.length(size)?;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.push(Node::String(text))
    }

    fn raw(&mut self, size: usize) -> Result<()> {
        let length = self.length(size)?;
        self.take(length)?;
        self.push(Node::Bytes)
    }

    // The stack

    fn push(&mut self, node: Node) -> Result<()> {
        let id = self.arena.add(node)?;
        self.stack.push(id);
        Ok(())
    }

    /// Where the objects above the last mark begin.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id> {
        if self.stack.len() <= self.floor() {
            return Err(damaged("its stack is empty"));
        }
        self.stack.pop().ok_or_else(|| damaged("its stack is empty"))
    }

    fn pop_some(&mut self, n: usize) -> Result<Vec<Id>> {
        if self.stack.len() < self.floor() + n {
            return Err(damaged("its stack is empty"));
        }
        Ok(self.stack.split_off(self.stack.len() - n))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| damaged("a mark is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn top(&self) -> Result<Id> {
        self.stack.last().copied().ok_or_else(|| damaged("its stack is empty"))
    }

    fn remember(&mut self, index: u64) -> Result<()> {
        let top = self.top()?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u64) -> Result<()> {
        let id =
            self.memo.get(&index).ok_or_else(|| damaged("it remembers an object that was never made"))?;
        self.stack.push(*id);
        Ok(())
    }

    // Objects

    fn extend(&mut self, items: Vec<Id>) -> Result<()> {
        let top = self.top()?;
        match self.arena.get_mut(top) {
            Node::List(list) => {
                list.extend(items);
                Ok(())
            }
            Node::Opaque { .. } => Ok(()),
            _ => Err(damaged("it appends to something that is no list")),
        }
    }

    fn set(&mut self, items: Vec<Id>) -> Result<()> {
        let (top, new) = (self.top()?, pairs(items)?);
        match self.arena.get_mut(top) {
            Node::Dict(pairs) => {
                pairs.extend(new);
                Ok(())
            }
            Node::Opaque { .. } => Ok(()),
            _ => Err(damaged("it sets members of something that is no dict")),
        }
    }

    fn build(&mut self, new: Id) -> Result<()> {
        let top = self.top()?;
        // Dicts and tensors carry Python attributes too, which nobody needs.
        if let Node::Opaque { state, .. } = self.arena.get_mut(top) {
            *state = Some(new);
        }
        Ok(())
    }

    /// A copy of a tuple's or list's members.
    fn members(&mut self, id: Id) -> Result<Vec<Id>> {
        let count = self.tuple(id).len();
        self.copies = self.copies.checked_sub(count).ok_or_else(|| damaged("it copies too much"))?;
        Ok(self.tuple(id).to_vec())
    }

    fn tuple(&self, id: Id) -> &[Id] {
        match self.arena.get(id) {
            Node::Tuple(items) | Node::List(items) => items,
            _ => &[],
        }
    }

    /// What a known function gives for its arguments; an inert object for all others.
    fn call(&mut self, function: Id, arguments: Id) -> Result<()> {
        let Node::Global(module, name) = self.arena.get(function) else {
            return self.push(Node::Opaque { class: "something that is no function".into(), state: None });
        };
        if module.len() + name.len() > LONGEST_NAME {
            return Err(damaged("a class with a name that is too long"));
        }
        let class = format!("{module}.{name}");
        let arguments = self.members(arguments)?;
        match class.as_str() {
            "collections.OrderedDict" | "collections.defaultdict" => {
                // Python 2 hands the members over as a list of pairs.
                let members = arguments.last().map_or(Ok(Vec::new()), |list| self.members(*list))?;
                let pairs = members.iter().filter_map(|pair| match self.tuple(*pair) {
                    [key, value] => Some((*key, *value)),
                    _ => None,
                });
                let dict = Node::Dict(pairs.collect());
                self.push(dict)
            }
            "torch.Size" => {
                let items = arguments.first().map_or(Ok(Vec::new()), |list| self.members(*list))?;
                self.push(Node::Tuple(items))
            }
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor" => {
                let tensor = self.rebuild(&arguments)?;
                self.push(Node::Tensor(tensor))
            }
            "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" => {
                let data = arguments.first().ok_or_else(|| damaged("a parameter without its tensor"))?;
                self.stack.push(*data);
                Ok(())
            }
            // A subclass of Tensor: (function, type, arguments, state).
            "torch._tensor._rebuild_from_type_v2" => match arguments.as_slice() {
                [inner, _, inner_arguments, ..] if *inner != function => {
                    let is_rebuild = matches!(self.arena.get(*inner), Node::Global(_, name) if name.starts_with("_rebuild_tensor"));
                    if is_rebuild { self.call(*inner, *inner_arguments) } else { self.opaque(class) }
                }
                _ => self.opaque(class),
            },
            _ => self.opaque(class),
        }
    }

    fn opaque(&mut self, class: String) -> Result<()> {
        self.push(Node::Opaque { class, state: None })
    }

    /// `(storage, offset, size, stride, …)`
    fn rebuild(&self, arguments: &[Id]) -> Result<TensorInfo> {
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err(damaged("a tensor with too few arguments"));
        };
        let Node::Storage(storage) = self.arena.get(*storage) else {
            return Err(damaged("a tensor whose storage is none"));
        };
        let size = |id: &Id| match self.arena.get(*id) {
            Node::Int(n) => {
                usize::try_from(*n).map_err(|_| damaged("a tensor with a negative size or stride"))
            }
            _ => Err(damaged("a tensor with a size or stride that is no number")),
        };
        let sizes = |id: &Id| {
            let sizes = self.tuple(*id);
            if sizes.len() > MOST_DIMENSIONS {
                return Err(damaged("a tensor with too many dimensions"));
            }
            sizes.iter().map(size).collect::<Result<Vec<usize>>>()
        };
        Ok(TensorInfo {
            storage: storage.clone(),
            offset: size(offset)?,
            shape: sizes(shape)?,
            strides: sizes(strides)?,
        })
    }

    /// A persistent id: `('storage', class, key, location, count, …)`.
    fn storage(&self, id: Id) -> Result<Node> {
        let [_, class, key, _, count, ..] = self.tuple(id) else {
            return Err(damaged("a storage with too few fields"));
        };
        let (Node::String(key), Node::Int(count)) = (self.arena.get(*key), self.arena.get(*count)) else {
            return Err(damaged("a storage without key or size"));
        };
        let Node::Global(module, name) = self.arena.get(*class) else {
            return Err(damaged("a storage without a type"));
        };
        if key.len() + module.len() + name.len() > LONGEST_NAME {
            return Err(damaged("a storage with a name that is too long"));
        }
        let element =
            (module == "torch" || module == "torch.cuda").then(|| Element::of_storage(name)).flatten();
        let count = usize::try_from(*count).map_err(|_| damaged("a storage of negative size"))?;
        Ok(match element {
            Some(element) => Node::Storage(StorageInfo { key: key.clone(), element, count }),
            None => Node::Opaque { class: format!("{module}.{name}"), state: None },
        })
    }
}

fn pairs(items: Vec<Id>) -> Result<Vec<(Id, Id)>> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(damaged("a dict's key has no value"));
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn damaged(what: &str) -> Error {
    Error::incompatible(what).help("the file is damaged, or is not what torch.save wrote")
}
