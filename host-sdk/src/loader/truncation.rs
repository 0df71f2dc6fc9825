//! Whether a library's file was cut off, as by a broken download.
//!
//! The loader of Linux maps such a file without a look at its length, and the process dies of SIGBUS. So the
//! headers of ELF files (64 bits, little-endian) are read here first; files of any other form are left to the system.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// What is missing; `None` if nothing is, or if the file is not such a library.
pub(super) fn cut_off(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let mut header = Vec::new();
    (&mut file).take(64).read_to_end(&mut header).ok()?;
    if header.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let short = |what: &str, end: u64| {
        (end > length)
            .then(|| format!("the file is cut off: {what} ends at byte {end}, the file at byte {length}"))
    };
    if let Some(why) = short("its header", 64) {
        return Some(why);
    }
    let table = u64_at(&header, 32)?;
    let (size, count) = (u64::from(u16_at(&header, 54)?), u64::from(u16_at(&header, 56)?));
    let end = table.saturating_add(size * count);
    if let Some(why) = short("its table of segments", end) {
        return Some(why);
    }
    let mut segments = Vec::new();
    file.seek(SeekFrom::Start(table)).ok()?;
    file.take(size * count).read_to_end(&mut segments).ok()?;
    segments
        .chunks_exact(usize::try_from(size).ok().filter(|&size| size >= 40)?)
        .find_map(|segment| short("a segment", u64_at(segment, 8)?.saturating_add(u64_at(segment, 32)?)))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(all(target_os = "linux", target_endian = "little", target_pointer_width = "64"))]
    fn every_cut_into_a_program_is_noticed() {
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cut");
        let cut_at = |length: usize| {
            std::fs::write(&path, &whole[..length]).unwrap();
            cut_off(&path)
        };
        assert_eq!(cut_at(whole.len()), None);
        for length in [10, 63, 64, 100, 2000, whole.len() / 2] {
            assert!(cut_at(length).unwrap().contains("cut off"), "{length}");
        }
        assert_eq!(cut_at(0), None, "not this check's business");
    }
}
