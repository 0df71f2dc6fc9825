//! Files that are there as a whole or not at all.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use vocable_host_sdk::abi::NodeError;

/// Writes `bytes` beside `path` and renames: whoever reads `path` sees the old file or the new one. Makes the folder if need be.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), NodeError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let failed = |error: std::io::Error| {
        NodeError::internal(format!("{}: cannot be written", path.display()))
            .caused_by(&error)
            .help("Is the disk full, or the folder write-protected?")
    };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(NodeError::invalid_input(format!("{}: not a name for a file", path.display())));
    };
    fs::create_dir_all(folder).map_err(failed)?;
    let unique =
        format!(".{}.{}-{}", name.display(), std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let beside = folder.join(unique);
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path));
    written.map_err(|error| {
        // The first error is the one to tell; what is left over is small and hidden.
        let _ = fs::remove_file(&beside);
        failed(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_beside_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/a.bin");
        write_atomically(&path, b"one").unwrap();
        write_atomically(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(dir.path().join("sub")).unwrap().count(), 1);
        assert!(write_atomically(dir.path(), b"x").unwrap_err().message.contains("cannot be written"));
    }
}
