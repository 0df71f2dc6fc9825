//! Captions from beside a picture or from its name.

use std::path::Path;

/// The caption in a file name, as A1111 reads it: the stem without leading digits and dashes; underscores become spaces. `None` if nothing is left.
///
/// ```
/// use vocable_engine::concept::caption_of_file_name;
/// assert_eq!(caption_of_file_name("00012-3-a red_cat.png").as_deref(), Some("a red cat"));
/// assert_eq!(caption_of_file_name("0001.png"), None);
/// ```
pub fn caption_of_file_name(name: &str) -> Option<String> {
    let stem = Path::new(name).file_stem()?.to_string_lossy().into_owned();
    one_line(&stem.trim_start_matches(|c: char| c.is_numeric() || c == '-').replace('_', " "))
}

/// The text beside a picture: `cat.png` has `cat.txt`. Bytes that are no UTF-8 are replaced.
pub(super) fn sidecar(picture: &Path) -> Option<String> {
    one_line(&String::from_utf8_lossy(&std::fs::read(picture.with_extension("txt")).ok()?))
}

/// Captions are one line; a byte-order mark is no text.
pub(super) fn one_line(text: &str) -> Option<String> {
    let line = text.trim_start_matches('\u{feff}').split_whitespace().collect::<Vec<_>>().join(" ");
    (!line.is_empty()).then_some(line)
}
