//! Sentences around the learned word.
//!
//! The two lists are those of diffusers' `examples/textual_inversion/textual_inversion.py`, which are the paper's shorter ones (Gal et al. 2022, after CLIP's ImageNet templates).

use crate::diffusion::TorchRng;
use crate::{Error, Result};

/// 27 sentences for things; `{}` is the word.
pub const OBJECT_TEMPLATES: &[&str] = &[
    "a photo of a {}",
    "a rendering of a {}",
    "a cropped photo of the {}",
    "the photo of a {}",
    "a photo of a clean {}",
    "a photo of a dirty {}",
    "a dark photo of the {}",
    "a photo of my {}",
    "a photo of the cool {}",
    "a close-up photo of a {}",
    "a bright photo of the {}",
    "a cropped photo of a {}",
    "a photo of the {}",
    "a good photo of the {}",
    "a photo of one {}",
    "a close-up photo of the {}",
    "a rendition of the {}",
    "a photo of the clean {}",
    "a rendition of a {}",
    "a photo of a nice {}",
    "a good photo of a {}",
    "a photo of the nice {}",
    "a photo of the small {}",
    "a photo of the weird {}",
    "a photo of the large {}",
    "a photo of a cool {}",
    "a photo of a small {}",
];

/// 19 sentences for styles; `{}` is the word. Two are there twice, as in the original.
pub const STYLE_TEMPLATES: &[&str] = &[
    "a painting in the style of {}",
    "a rendering in the style of {}",
    "a cropped painting in the style of {}",
    "the painting in the style of {}",
    "a clean painting in the style of {}",
    "a dirty painting in the style of {}",
    "a dark painting in the style of {}",
    "a picture in the style of {}",
    "a cool painting in the style of {}",
    "a close-up painting in the style of {}",
    "a bright painting in the style of {}",
    "a cropped painting in the style of {}",
    "a good painting in the style of {}",
    "a close-up painting in the style of {}",
    "a rendition in the style of {}",
    "a nice painting in the style of {}",
    "a small painting in the style of {}",
    "a weird painting in the style of {}",
    "a large painting in the style of {}",
];

/// A list of one's own: a template per line, with `{}` or A1111's `[name]` for the word and perhaps `[filewords]` for the caption. Empty lines and lines that begin
/// with `#` are left out; `[name]` becomes `{}`.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a line without the word (its number is told) or when there is no line.
pub fn parse_templates(text: &str) -> Result<Vec<String>> {
    let mut templates = Vec::new();
    for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let template = line.replace("[name]", "{}");
        if !template.contains("{}") {
            return Err(Error::invalid(format!(
                "template in line {}: {line:?} has no place for the word",
                number + 1
            ))
            .help("write {} where the word goes"));
        }
        templates.push(template);
    }
    if templates.is_empty() {
        return Err(
            Error::invalid("no templates").help("write one sentence per line, with {} where the word goes")
        );
    }
    Ok(templates)
}

/// A template with the word, and the caption or nothing, in their places.
pub fn fill_template(template: &str, word: &str, caption: Option<&str>) -> String {
    let filled =
        template.replace("[name]", "{}").replace("[filewords]", caption.unwrap_or("")).replace("{}", word);
    filled.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A caption in which the word certainly occurs: at `{}` or `[name]`, where it stands already, or else in front, `word, caption`. The flag says that it had to be put
/// there, which deserves a warning: a picture whose caption does not name the word teaches it little.
pub fn caption_with_word(caption: &str, word: &str) -> (String, bool) {
    if caption.contains("{}") || caption.contains("[name]") {
        return (fill_template(caption, word, None), false);
    }
    if crate::prompt::contains_word(caption, word) {
        return (caption.to_owned(), false);
    }
    (format!("{word}, {caption}"), true)
}

/// One of the templates, drawn with the generator; `None` if there are none.
pub fn pick_template<'a, T: AsRef<str>>(templates: &'a [T], rng: &mut TorchRng) -> Option<&'a str> {
    let count = u64::try_from(templates.len()).ok().filter(|n| *n > 0)?;
    templates.get((rng.next_u64() % count) as usize).map(AsRef::as_ref)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!((OBJECT_TEMPLATES.len(), STYLE_TEMPLATES.len()), (27, 19));
        for t in OBJECT_TEMPLATES.iter().chain(STYLE_TEMPLATES) {
            assert_eq!(t.matches("{}").count(), 1, "{t}");
        }
        let distinct: std::collections::HashSet<_> = OBJECT_TEMPLATES.iter().collect();
        assert_eq!(distinct.len(), 27);
    }

    #[test]
    fn own_lists() {
        let text = "\u{feff}a photo of {}\n\n# a comment\n  a [name], [filewords]  \n";
        assert_eq!(parse_templates(text).unwrap(), ["a photo of {}", "a {}, [filewords]"]);
        assert!(parse_templates("a {}\na cat").unwrap_err().message.contains("line 2"));
        assert!(parse_templates("# nothing\n").is_err());
    }

    #[test]
    fn filling() {
        assert_eq!(fill_template("a {}, [filewords]", "<x>", Some("on a mat")), "a <x>, on a mat");
        assert_eq!(fill_template("[filewords] [name]", "<x>", None), "<x>");
        let rows = [
            ("a {} on a mat", "a <x> on a mat", false),
            ("[name] sits", "<x> sits", false),
            ("a <x> sits", "a <x> sits", false),
            ("a cat", "<x>, a cat", true),
            ("a<x>b", "<x>, a<x>b", true),
        ];
        for (caption, want, added) in rows {
            assert_eq!(caption_with_word(caption, "<x>"), (want.to_owned(), added), "{caption}");
        }
    }

    #[test]
    fn picking_is_seeded_and_reaches_all() {
        let draw = |seed| {
            let mut rng = TorchRng::new(seed);
            (0..500).map(|_| pick_template(OBJECT_TEMPLATES, &mut rng).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
        assert_eq!(draw(1).iter().collect::<std::collections::HashSet<_>>().len(), 27);
        assert_eq!(pick_template::<&str>(&[], &mut TorchRng::new(0)), None);
    }
}
