//! What is done with files everywhere: written whole or not at all, and named by their contents.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Write `bytes` to a name beside `path`, onto the disk, and then over `path`: no reader ever sees half a file, and after a power failure the old
/// one or the new one is whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let beside = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&beside, path));
    written.map_err(|error| {
        // What lies beside is of no use to anybody.
        let _ = std::fs::remove_file(&beside);
        Error::io(path, &error)
    })
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
