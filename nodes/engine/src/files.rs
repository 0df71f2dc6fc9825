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

/// The first 16 bytes of a hash in hexadecimal: enough to name contents.
pub(crate) fn short_hex(hash: Sha256) -> String {
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// A file's size and contents into `hash`; of a large one its head, its tail and 64 blocks between.
pub(crate) fn sample(path: &Path, hash: &mut Sha256) -> std::io::Result<()> {
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
