//! The objects of a pickle.

use std::collections::HashMap;

use crate::{Error, Result};

/// The number of an object in its [`Arena`].
pub(super) type Id = u32;

/// Element types of torch's storages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// `FloatStorage`
    F32,
    /// `DoubleStorage`
    F64,
    /// `HalfStorage`
    F16,
    /// `BFloat16Storage`
    Bf16,
    /// `LongStorage`
    I64,
    /// `IntStorage`
    I32,
    /// `ShortStorage`
    I16,
    /// `CharStorage`
    I8,
    /// `ByteStorage`
    U8,
    /// `BoolStorage`
    Bool,
}

impl Element {
    /// The type of a storage class of that name in the module `torch`.
    pub(super) fn of_storage(name: &str) -> Option<Self> {
        Some(match name {
            "FloatStorage" => Self::F32,
            "DoubleStorage" => Self::F64,
            "HalfStorage" => Self::F16,
            "BFloat16Storage" => Self::Bf16,
            "LongStorage" => Self::I64,
            "IntStorage" => Self::I32,
            "ShortStorage" => Self::I16,
            "CharStorage" => Self::I8,
            "ByteStorage" => Self::U8,
            "BoolStorage" => Self::Bool,
            _ => return None,
        })
    }

    /// Bytes of one number.
    pub fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

/// A storage by its key, with the number of elements that the pickle claims for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageInfo {
    /// Its name in the archive.
    pub key: String,
    /// Type of its numbers.
    pub element: Element,
    /// How many.
    pub count: usize,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Where its numbers lie.
    pub storage: StorageInfo,
    /// The first number, counted in elements.
    pub offset: usize,
    /// Sizes of the dimensions.
    pub shape: Vec<usize>,
    /// Elements from one place of a dimension to the next.
    pub strides: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    None,
    Bool(bool),
    Int(i64),
    /// Its value is of no use to anybody.
    Float,
    String(String),
    /// Bytes, and whole numbers of more than 64 bits: nothing that a state dict needs.
    Bytes,
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or function by its name.
    Global(String, String),
    Storage(StorageInfo),
    Tensor(TensorInfo),
    /// An object of a class that we do not know, with the state that it was given.
    Opaque {
        class: String,
        state: Option<Id>,
    },
}

/// An object of some hundred bytes may come from one byte of the pickle.
const MOST_OBJECTS: usize = 1 << 20;

/// All objects of a pickle.
#[derive(Debug, Default)]
pub(super) struct Arena(Vec<Node>);

impl Arena {
    pub(super) fn add(&mut self, node: Node) -> Result<Id> {
        if self.0.len() >= MOST_OBJECTS {
            return Err(Error::incompatible("the pickle has too many objects")
                .help("a checkpoint has some ten thousand: this file is none, or is hostile"));
        }
        let id = self.0.len() as Id;
        self.0.push(node);
        Ok(id)
    }

    pub(super) fn get(&self, id: Id) -> &Node {
        // Ids are made by `add` alone and nothing is ever removed.
        &self.0[id as usize]
    }

    /// The type of every storage that a tensor uses, by its key.
    pub(super) fn storages(&self) -> HashMap<&str, Element> {
        let types = self.0.iter().filter_map(|node| match node {
            Node::Storage(info) => Some((info.key.as_str(), info.element)),
            _ => None,
        });
        types.collect()
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.0[id as usize]
    }
}

/// An object of a file.
#[derive(Clone, Copy)]
pub struct Item<'a> {
    arena: &'a Arena,
    id: Id,
}

impl<'a> Item<'a> {
    pub(super) fn new(arena: &'a Arena, id: Id) -> Self {
        Self { arena, id }
    }

    fn with(self, id: Id) -> Self {
        Self { id, ..self }
    }

    /// The tensor, if it is one.
    pub fn tensor(self) -> Option<&'a TensorInfo> {
        match self.arena.get(self.id) {
            Node::Tensor(info) => Some(info),
            _ => None,
        }
    }

    /// The text, if it is one.
    pub fn string(self) -> Option<&'a str> {
        match self.arena.get(self.id) {
            Node::String(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number, if it is one.
    pub fn int(self) -> Option<i64> {
        match self.arena.get(self.id) {
            Node::Int(n) => Some(*n),
            _ => None,
        }
    }

    /// The members that have a name: of a dict, or of an object's state. A `nn.ParameterDict` or a module shows its `_parameters`.
    pub fn entries(self) -> Vec<(&'a str, Item<'a>)> {
        let pairs = match self.arena.get(self.id) {
            Node::Dict(pairs) => pairs,
            Node::Opaque { state: Some(state), .. } => match self.arena.get(*state) {
                Node::Dict(pairs) => pairs,
                _ => return Vec::new(),
            },
            _ => return Vec::new(),
        };
        let named = |(key, value): &(Id, Id)| Some((self.with(*key).string()?, self.with(*value)));
        let entries: Vec<_> = pairs.iter().filter_map(named).collect();
        let is_object = matches!(self.arena.get(self.id), Node::Opaque { .. });
        match entries.iter().find(|(name, _)| is_object && *name == "_parameters") {
            Some((_, Item { arena, id })) if matches!(arena.get(*id), Node::Dict(_)) => {
                self.with(*id).entries()
            }
            _ => entries,
        }
    }

    /// The member of that name.
    pub fn get(self, name: &str) -> Option<Item<'a>> {
        // The last one counts, as in Python.
        self.entries().into_iter().rev().find(|(key, _)| *key == name).map(|(_, item)| item)
    }

    /// What it is, for errors: `dict`, `tensor`, `object of numpy.ndarray`.
    pub fn kind(self) -> String {
        match self.arena.get(self.id) {
            Node::None => "None".into(),
            Node::Bool(_) => "bool".into(),
            Node::Int(_) => "int".into(),
            Node::Float => "float".into(),
            Node::String(_) => "str".into(),
            Node::Bytes => "bytes".into(),
            Node::Tuple(_) => "tuple".into(),
            Node::List(_) => "list".into(),
            Node::Dict(_) => "dict".into(),
            Node::Global(module, name) => format!("{module}.{name}"),
            Node::Storage(_) => "storage".into(),
            Node::Tensor(_) => "tensor".into(),
            Node::Opaque { class, .. } => format!("object of {class}"),
        }
    }
}
