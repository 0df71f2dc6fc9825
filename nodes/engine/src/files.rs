//! What is done with files everywhere: written whole or not at all, and named by their contents.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Write `bytes` to a name beside `path`, onto the disk, and then over `path`: no reader ever sees half a file, and after a power failure the old
/// one or the new one is whole.
///
/// # Errors
/// Those of the file system, with the file's name; the file is then as it was.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole_by(path, |file| file.write_all(bytes).map_err(|error| Error::io(path, &error)))
}

/// The same for what is written piece by piece. If `write` fails, nothing is left.
pub(crate) fn write_whole_by(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(path, &error);
    let beside = beside(path);
    let written = File::create(&beside)
        .map_err(failed)
        .and_then(|mut file| {
            write(&mut file)?;
            file.sync_all().map_err(failed)
        })
        .and_then(|()| std::fs::rename(&beside, path).map_err(failed));
    written.inspect_err(|_| {
        // What lies beside is of no use to anybody.
        let _ = std::fs::remove_file(&beside);
    })
}

/// A folder that is there with all that `fill` writes into it, or not at all.
///
/// # Errors
/// Those of `fill`; [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if there is something of that name already.
pub(crate) fn write_folder(path: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let failed = |error: std::io::Error| Error::io(path, &error);
    if path.symlink_metadata().is_ok() {
        return Err(Error::invalid(format!("{}: is there already", path.display()))
            .help("choose another name, or take away what is there"));
    }
    let beside = beside(path);
    let written = std::fs::create_dir(&beside)
        .map_err(failed)
        .and_then(|()| fill(&beside))
        .and_then(|()| std::fs::rename(&beside, path).map_err(failed));
    written.inspect_err(|_| {
        let _ = std::fs::remove_dir_all(&beside);
    })
}

/// A name for what is not yet whole: nobody else's, even where two threads write the same file.
fn beside(path: &Path) -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}-{count}.part", std::process::id()))
}

/// The beginning of a safetensors file: the length of its header, and the header, which says of each tensor its name, type (`F32`), shape and size
/// in bytes, in the order in which they follow.
///
/// It is written here and not by the safetensors crate, which keeps metadata in a hash map and so in random order.
pub(crate) fn safetensors_header<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = (&'a str, &'a str, &'a [usize], usize)>,
) -> Vec<u8> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!(metadata));
    let mut start = 0;
    for (name, dtype, shape, size) in tensors {
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [start, start + size]});
        header.insert(name.into(), entry);
        start += size;
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    // Tensors begin at a multiple of eight, as the format's own writer has it.
    header.resize(header.len().next_multiple_of(8), b' ');
    [&(header.len() as u64).to_le_bytes(), &header[..]].concat()
}

/// The texts in the header of a safetensors file that is known to be sound.
pub(crate) fn safetensors_metadata(path: &Path) -> Result<BTreeMap<String, String>> {
    #[derive(serde::Deserialize)]
    struct Header {
        #[serde(rename = "__metadata__", default)]
        metadata: BTreeMap<String, String>,
    }
    let read = || {
        let mut file = File::open(path)?;
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let mut header = Vec::new();
        file.take(u64::from_le_bytes(length)).read_to_end(&mut header)?;
        Ok(header)
    };
    let header = read().map_err(|error: std::io::Error| Error::io(path, &error))?;
    let header: Header = serde_json::from_slice(&header)
        .map_err(|error| Error::incompatible(format!("{}: {error}", path.display())))?;
    Ok(header.metadata)
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first 16 bytes of a hash in hexadecimal: enough to name contents.
pub fn short_hex(hash: Sha256) -> String {
    hex(&hash.finalize()[..16])
}

/// A file, or the files of a folder by name, into `hash`; nothing where there is nothing.
pub(crate) fn sample_all(path: &Path, hash: &mut Sha256) -> Result<()> {
    let mut files = Vec::new();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| Error::io(path, &error))?;
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()));
    } else if path.exists() {
        files.push(path.to_owned());
    }
    files.sort();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        sample(&file, hash).map_err(|error| Error::io(&file, &error))?;
    }
    Ok(())
}

/// A file's size and contents into `hash`; of a large one its head, its tail and 64 blocks between.
fn sample(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    const BLOCK: u64 = 1 << 16;
    const BLOCKS: u64 = 64;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    hash.update(size.to_le_bytes());
    let mut block = Vec::new();
    let step = if size <= BLOCK * BLOCKS * 4 { BLOCK } else { (size - BLOCK) / BLOCKS };
    let mut start = 0;
    while start < size {
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        Read::by_ref(&mut file).take(BLOCK).read_to_end(&mut block)?;
        hash.update(&block);
        start += step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_half_way_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.bin");
        let fail = || Err(Error::cancelled());
        write_whole_by(&file, |file| {
            file.write_all(b"half").unwrap();
            fail()
        })
        .unwrap_err();
        let folder = dir.path().join("a");
        write_folder(&folder, |inside| {
            write_whole(&inside.join("b"), b"half").unwrap();
            fail()
        })
        .unwrap_err();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);

        write_whole(&file, b"whole").unwrap();
        write_folder(&folder, |inside| write_whole(&inside.join("b"), b"whole")).unwrap();
        let error = write_folder(&folder, |_| fail()).unwrap_err();
        assert!(error.message.contains("already"), "{error}");
        assert_eq!(std::fs::read(folder.join("b")).unwrap(), b"whole");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        // A file is no folder.
        assert!(write_folder(&file.join("c"), |_| Ok(())).is_err());
    }
}
