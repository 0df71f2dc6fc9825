//! The two containers of `torch.save`: a zip (since 1.6), and before that pickles followed by the storages.

use std::collections::HashMap;
use std::io::Cursor;
use std::ops::Range;

use zip::{CompressionMethod, ZipArchive};

use super::machine;
use super::node::{Arena, Id, Node, StorageInfo};
use crate::{Error, Result};

/// Where the storages lie in the file.
pub(super) struct Archive {
    storages: HashMap<String, Range<usize>>,
    /// Whether numbers have their highest byte first.
    pub(super) big_endian: bool,
}

impl Archive {
    /// The bytes of a storage.
    pub(super) fn storage<'a>(&self, file: &'a [u8], info: &StorageInfo) -> Result<&'a [u8]> {
        let range = self.storages.get(&info.key).cloned();
        range.and_then(|range| file.get(range)).ok_or_else(|| {
            Error::incompatible(format!("storage {} is not in the file", info.key))
                .help("the file is cut short: fetch it again")
        })
    }
}

/// Reads the objects of a whole file.
pub(super) fn open(file: &[u8]) -> Result<(Archive, Arena, Id)> {
    if file.starts_with(b"PK\x03\x04") { open_zip(file) } else { open_legacy(file) }
}

fn open_zip(file: &[u8]) -> Result<(Archive, Arena, Id)> {
    let damaged = |error: zip::result::ZipError| {
        Error::incompatible(format!("not a whole zip: {error}"))
            .help("the file may be cut short: fetch it again")
    };
    let mut zip = ZipArchive::new(Cursor::new(file)).map_err(damaged)?;
    let mut archive = Archive { storages: HashMap::new(), big_endian: false };
    let mut pickle = None;
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(damaged)?;
        let name = entry.name().map_err(damaged)?.into_owned();
        // All names stand below one folder, which is called as the file was.
        let Some((_, name)) = name.split_once('/') else { continue };
        if entry.compression() != CompressionMethod::Stored || entry.encrypted() {
            return Err(Error::incompatible(format!(
                "{name} is compressed in its zip, which torch.save never does"
            ))
            .help("unpack and save it again with torch, or convert the file to .safetensors"));
        }
        let range = entry.data_start().and_then(|start| {
            let (start, size) =
                (usize::try_from(start).ok()?, usize::try_from(entry.compressed_size()).ok()?);
            Some(start..start.checked_add(size)?)
        });
        let bytes = range.clone().and_then(|range| file.get(range));
        let (Some(range), Some(bytes)) = (range, bytes) else {
            return Err(
                Error::incompatible(format!("{name} does not lie in the file")).help("the file is cut short")
            );
        };
        if let Some(key) = name.strip_prefix("data/") {
            archive.storages.insert(key.to_owned(), range);
        } else if name == "data.pkl" {
            pickle = Some(bytes);
        } else if name == "byteorder" {
            archive.big_endian = bytes == b"big";
        }
    }
    let pickle = pickle.ok_or_else(|| {
        Error::incompatible("a zip, but not one of torch.save: it has no data.pkl")
            .help("is this an archive that holds a model? Unpack it first")
    })?;
    let mut arena = Arena::default();
    let (root, _) = machine::run(pickle, &mut arena)?;
    Ok((archive, arena, root))
}

/// Magic number, protocol version, what machine it was, the object, the storages' keys: five pickles; then each storage as its length and its numbers.
fn open_legacy(file: &[u8]) -> Result<(Archive, Arena, Id)> {
    const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
    if file.len() < 15 {
        return Err(Error::incompatible("too short for a file of torch.save"));
    }
    let mut arena = Arena::default();
    // The number stands in a pickle of its own, of few bytes in every protocol.
    let head = machine::run(&file[..file.len().min(64)], &mut arena);
    let is_magic = |used: usize| file[..used].windows(MAGIC.len()).any(|window| window == MAGIC);
    let Some((_, mut at)) = head.ok().filter(|(_, used)| is_magic(*used)) else {
        return Err(Error::incompatible("a pickle, but not one of torch.save")
            .help("save the weights again with torch.save or as .safetensors"));
    };
    let next = |arena: &mut Arena, at: &mut usize| -> Result<Id> {
        let (id, used) = machine::run(&file[*at..], arena)?;
        *at += used;
        Ok(id)
    };
    next(&mut arena, &mut at)?;
    let system = next(&mut arena, &mut at)?;
    let big_endian = match arena.get(system) {
        Node::Dict(pairs) => pairs.iter().any(|(key, value)| {
            matches!(arena.get(*key), Node::String(name) if name == "little_endian")
                && matches!(arena.get(*value), Node::Bool(false))
        }),
        _ => false,
    };
    let root = next(&mut arena, &mut at)?;
    let keys = next(&mut arena, &mut at)?;
    let elements = arena.storages();
    let Node::List(keys) = arena.get(keys) else {
        return Err(Error::incompatible("the list of storages is missing").help("the file is damaged"));
    };
    let mut storages = HashMap::new();
    for key in keys {
        let Node::String(key) = arena.get(*key) else { continue };
        let size = elements.get(key.as_str()).map_or(1, |element| element.size());
        let count = file
            .get(at..at + 8)
            .map(|bytes| bytes.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)));
        let end = count.and_then(|count| usize::try_from(count).ok()?.checked_mul(size)?.checked_add(at + 8));
        let Some(end) = end.filter(|end| *end <= file.len()) else {
            return Err(Error::incompatible(format!("storage {key} ends beyond the file"))
                .help("the file is cut short: fetch it again"));
        };
        storages.insert(key.clone(), at + 8..end);
        at = end;
    }
    Ok((Archive { storages, big_endian }, arena, root))
}
