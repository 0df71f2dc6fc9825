//! `.ckpt`, `.pt` and `.bin`: what `torch.save` wrote, read without running anything.
//!
//! A pickle is a program for a small stack machine, and Python's reader lets it call any function. Ours knows the handful of functions
//! that a state dict needs ([`machine`]); every other name becomes an inert [`Node::Opaque`]. Objects live in one arena and refer to each
//! other by number, so shared and cyclic references cost nothing, and their
//! number is bounded; a tensor is read only where its shape and strides lie inside its storage ([`tensor`]).

mod archive;
mod machine;
mod node;
mod tensor;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use memmap2::Mmap;

use archive::Archive;
use node::{Arena, Id};
pub use node::{Item, TensorInfo};

use crate::{Error, Result};

/// A file that `torch.save` wrote: its objects, and the places of its tensors. The numbers stay on disk until they are asked for.
pub struct TorchFile {
    path: PathBuf,
    data: Data,
    archive: Archive,
    arena: Arena,
    root: Id,
}

enum Data {
    Mapped(Mmap),
    Bytes(Vec<u8>),
}

impl std::ops::Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl TorchFile {
    /// Whether a file's first bytes can be one: a zip, or a pickle. A pickle begins with PROTO and its version; as the length of a safetensors
    /// header that would be more than it can be only by chance, hence the `{`.
    pub fn is_torch(head: &[u8]) -> bool {
        head.starts_with(b"PK\x03\x04") || (matches!(head, [0x80, 1..=5, ..]) && head.get(8) != Some(&b'{'))
    }

    /// Reads the objects of a file, not yet its numbers.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), or [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) with the place where the file breaks.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|error| Error::io(path, &error))?;
        // SAFETY: as for safetensors, the mapping is only read, and a file that another program cuts short meanwhile stops this one.
        let data = unsafe { Mmap::map(&file) }.map_err(|error| Error::io(path, &error))?;
        Self::read(path, Data::Mapped(data)).map_err(|error| error.context(path.display()))
    }

    /// The same for a small file that is in memory already.
    ///
    /// # Errors
    /// As [`open`](Self::open), without the file's name.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Self::read(Path::new(""), Data::Bytes(bytes))
    }

    fn read(path: &Path, data: Data) -> Result<Self> {
        let (archive, arena, root) = archive::open(&data)?;
        Ok(Self { path: path.to_owned(), data, archive, arena, root })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The object that was saved.
    pub fn root(&self) -> Item<'_> {
        Item::new(&self.arena, self.root)
    }

    /// A tensor's numbers, on the CPU and in their own type.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) if they do not lie in the file as its pickle says, or have a type that candle does not know.
    pub fn tensor(&self, info: &TensorInfo) -> Result<Tensor> {
        let storage = self.archive.storage(&self.data, &info.storage);
        storage.and_then(|bytes| tensor::read(info, bytes, self.archive.big_endian)).map_err(|error| {
            if self.path.as_os_str().is_empty() { error } else { error.context(self.path.display()) }
        })
    }
}
