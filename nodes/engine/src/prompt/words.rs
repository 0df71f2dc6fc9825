//! Finding learned words in text.

use super::parts::KEYWORD;
use crate::{Error, Result};

/// A learned word and how many vectors stand for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// As the user writes it; case matters.
    pub word: String,
    /// Number of vectors, at least 1.
    pub vectors: usize,
}

impl Word {
    /// A word of `vectors` vectors.
    pub fn new(word: impl Into<String>, vectors: usize) -> Self {
        Self { word: word.into(), vectors }
    }
}

/// Whether `word` can be found in prompts: 1 to 64 characters without white space, without `( ) \ :`, which belong to the weight
/// syntax, and without control characters.
///
/// # Errors
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) that names the offending character.
pub fn check_word(word: &str) -> Result<()> {
    let advice = "use a word such as <my-cat> or sks";
    if word.is_empty() || word.chars().count() > 64 {
        let length = word.chars().count();
        return Err(Error::invalid(format!("the word has {length} characters, wanted 1 to 64")).help(advice));
    }
    match word.chars().find(|c| c.is_whitespace() || c.is_control() || "()\\:".contains(*c)) {
        Some(c) => {
            Err(Error::invalid(format!("the word {word:?} contains {c:?}, which a prompt reads otherwise"))
                .help(advice))
        }
        None => Ok(()),
    }
}

/// Whether `text` contains `word` standing alone.
pub fn contains_word(text: &str, word: &str) -> bool {
    !word.is_empty() && (0..text.len()).any(|at| text.is_char_boundary(at) && stands_at(text, at, word))
}

/// A stretch of text: plain, or a word by its index.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Text(&'a str),
    Word(usize),
}

/// Cut `text` at the words in it. A word that is followed by its own expansion as diffusers writes it (`<cat> <cat>_1 <cat>_2` for three vectors)
/// is one word, so that a prompt that was expanded already means the same.
pub(crate) fn cut<'a>(text: &'a str, words: &[Word]) -> Vec<Piece<'a>> {
    let mut longest_first: Vec<usize> = (0..words.len()).filter(|i| !words[*i].word.is_empty()).collect();
    longest_first.sort_by_key(|i| std::cmp::Reverse(words[*i].word.len()));
    let mut out = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        let hit = longest_first.iter().copied().find(|i| stands_at(text, at, &words[*i].word));
        let Some(index) = hit else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        };
        if start < at {
            out.push(Piece::Text(&text[start..at]));
        }
        out.push(Piece::Word(index));
        at = skip_expansion(text, at + words[index].word.len(), &words[index]);
        start = at;
    }
    if start < text.len() {
        out.push(Piece::Text(&text[start..]));
    }
    out
}

/// What in `text`, in which no word was found, looks as if it were meant as one: `embedding:` in any case, and words in angle brackets that touch
/// something. Each with all that touches it.
pub(super) fn overlooked<'a>(text: &'a str, words: &[Word]) -> Vec<&'a str> {
    // Only ASCII changes its case, so places stay the same.
    let lower = text.to_ascii_lowercase();
    let mut places: Vec<usize> = lower.match_indices(KEYWORD).map(|(at, _)| at).collect();
    for Word { word, .. } in
        words.iter().filter(|word| word.word.starts_with('<') && word.word.ends_with('>'))
    {
        places.extend(text.match_indices(word.as_str()).map(|(at, _)| at));
    }
    places.sort_unstable();
    let mut runs: Vec<&str> = places.into_iter().map(|at| run_around(text, at)).collect();
    runs.dedup();
    runs
}

/// The stretch without white space around a place.
fn run_around(text: &str, at: usize) -> &str {
    let space = text[..at].char_indices().rev().find(|(_, c)| c.is_whitespace());
    let start = space.map_or(0, |(place, c)| place + c.len_utf8());
    let end = text[at..].find(char::is_whitespace).map_or(text.len(), |length| at + length);
    &text[start..end]
}

/// Letters, digits and `_` glue: `sks` is not in `sksy`, and `<cat>` is not in `x<cat>`.
fn stands_at(text: &str, at: usize, word: &str) -> bool {
    let glue = |c: char| c.is_alphanumeric() || c == '_';
    text[at..].starts_with(word)
        && !text[..at].chars().next_back().is_some_and(glue)
        && !text[at + word.len()..].chars().next().is_some_and(glue)
}

fn skip_expansion(text: &str, after: usize, word: &Word) -> usize {
    let mut end = after;
    for row in 1..word.vectors {
        let next = format!(" {}_{row}", word.word);
        let follows = text[end..].starts_with(&next)
            && !text[end + next.len()..].chars().next().is_some_and(|c| c.is_alphanumeric() || c == '_');
        if !follows {
            // A part of an expansion is something else.
            return after;
        }
        end += next.len();
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting() {
        let words =
            [Word::new("<my-cat>", 2), Word::new("sks", 1), Word::new("sks-dog", 3), Word::new("ネコ", 1)];
        use Piece::{Text as T, Word as W};
        let rows: &[(&str, &[Piece<'_>])] = &[
            ("", &[]),
            ("a cat", &[T("a cat")]),
            ("sks", &[W(1)]),
            ("a <my-cat>, red", &[T("a "), W(0), T(", red")]),
            ("<my-cat><my-cat>", &[W(0), W(0)]),
            ("x<my-cat> <my-cat>s", &[T("x<my-cat> <my-cat>s")]),
            ("mysks skss sks_1 Sks", &[T("mysks skss sks_1 Sks")]),
            ("sks-dog sks-", &[W(2), T(" "), W(1), T("-")]),
            ("<my-cat> <my-cat>_1 sits", &[W(0), T(" sits")]),
            ("<my-cat> <my-cat>_2 sits", &[W(0), T(" <my-cat>_2 sits")]),
            ("sks-dog sks-dog_1 sks-dog_2", &[W(2)]),
            ("é ネコ 語", &[T("é "), W(3), T(" 語")]),
        ];
        for (text, want) in rows {
            assert_eq!(cut(text, &words), *want, "{text}");
        }
        assert_eq!(cut("any", &[Word::new("", 1)]), [T("any")]);
    }

    #[test]
    fn words_that_can_be_used() {
        for good in ["sks", "<my-cat>", "*", "ネコ", "a.b_c"] {
            check_word(good).unwrap();
            assert!(contains_word(&format!("a {good}, b"), good), "{good}");
        }
        for bad in ["", "two words", "a(b", "a:b", "a\\", "tab\t", &"x".repeat(65)] {
            assert!(check_word(bad).is_err(), "{bad}");
        }
        assert!(!contains_word("skss", "sks") && !contains_word("x", ""));
    }
}
