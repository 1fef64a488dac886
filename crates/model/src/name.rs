//! Names that people give to things and to themselves: what may stand in one, when two are the same, and how they are shown
//! to strangers.

use std::iter::Peekable;

use unicase::UniCase;
use unicode_normalization::UnicodeNormalization as _;

/// Characters of a name that a mail shows at most.
const SHOWN: usize = 60;

/// Joiners one after the other at most: a variation and a join.
const JOINERS: usize = 2;

/// Refuses a name that shows nothing, or holds what cannot be seen. The error is the end of a sentence that begins with the
/// field.
pub fn check(name: &str) -> Result<(), &'static str> {
    let (mut before, mut joiners) = (None, 0);
    let mut chars = name.chars().peekable();
    while let Some(c) = chars.next() {
        if !is_unseen(c) {
            (before, joiners) = (Some(c), 0);
            continue;
        }
        joiners += 1;
        if joiners > JOINERS || !is_joiner(c) || !joins(before, chars.peek()) {
            return Err("must not hold characters that cannot be seen, or that change the direction of others");
        }
    }
    if name.chars().all(is_blank) { Err("must show something") } else { Ok(()) }
}

/// What is the same for names that are the same to people: without what is around it or cannot be seen, NFKC, case-folded.
#[must_use]
pub fn key(name: &str) -> String {
    let seen: String = name.nfkc().filter(|c| !is_unseen(*c)).collect();
    let folded = UniCase::new(seen.trim()).to_folded_case();
    // Folding may leave what NFKC composes.
    folded.nfkc().collect()
}

/// A name that somebody else chose, for a mail: in quotes, on one line, of bounded length, and no link, whatever it says.
#[must_use]
pub fn quoted(name: &str) -> String {
    let seen: String = name.nfkc().map(|c| if c.is_whitespace() || c.is_control() { ' ' } else { c }).collect();
    let seen = seen.chars().filter(|c| !is_unseen(*c));
    let mut shown = String::new();
    let mut chars = unlinked(seen.peekable());
    let mut length = 0;
    for c in chars.by_ref() {
        if length == SHOWN {
            shown.push('…');
            break;
        }
        // One blank between words, and none before the first.
        if c == ' ' && (shown.is_empty() || shown.ends_with(' ')) {
            continue;
        }
        shown.push(if matches!(c, '"' | '“' | '”' | '„' | '«' | '»') { '\'' } else { c });
        length += 1;
    }
    format!("“{}”", shown.trim_end())
}

/// Puts a blank behind each sign that makes a link or an address of its neighbours.
fn unlinked(mut chars: Peekable<impl Iterator<Item = char>>) -> impl Iterator<Item = char> {
    let mut blank = false;
    std::iter::from_fn(move || {
        if std::mem::take(&mut blank) {
            return Some(' ');
        }
        let c = chars.next()?;
        let links = matches!(c, '.' | ':' | '/' | '\\' | '@' | '。' | '#' | '?' | '&' | '=' | '%');
        blank = links && chars.peek().is_some_and(|next| !next.is_whitespace());
        Some(c)
    })
}

/// Joiners and variation selectors are letters' and emojis' own, between or behind what is no ASCII.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE0E}' | '\u{FE0F}')
}

fn joins(before: Option<char>, after: Option<&char>) -> bool {
    let seen = |c: &char| !is_blank(*c) && !c.is_ascii_alphabetic();
    before.as_ref().is_some_and(seen) && after.is_none_or(|c| is_joiner(*c) || seen(c))
}

/// Blank, of whatever width.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c == '\u{2800}' || is_unseen(c)
}

/// What has no width, or shows nothing of itself: controls, marks of direction, fillers, format characters.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}'
            | '\u{1BCA0}'..='\u{1BCA3}' | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_shows_something_and_nothing_else() {
        for name in [
            "Ada",
            " Ada ",
            "Night shift",
            "Ünïcödé",
            "عدا",
            "שלום",
            "四つの馬",
            "می\u{200c}خواهم",
            "👩\u{200d}💻",
            "👁\u{fe0f}\u{200d}🗨\u{fe0f}",
            "❤\u{fe0f}",
            "O'Brien & Sons",
            "…",
        ] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
        for name in [
            "",
            " ",
            "\u{a0}\u{3000}",
            "\u{2800}",
            "\u{200b}",
            "\u{3164}",
            "\u{115f}",
            "Ada\u{202e}",
            "\u{2066}Ada\u{2069}",
            "Ada\u{200b}",
            "A\u{ad}da",
            "Ada\0",
            "Ada\n",
            "Ada\u{feff}",
            "A\u{200d}da",
            "\u{200d}",
            "a\u{fe0f}",
            "Ada\u{e0001}",
            "👩\u{200d}\u{200d}\u{200d}💻",
            "🏴\u{e0067}",
        ] {
            assert!(check(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn names_that_look_the_same_are_the_same() {
        for (one, other) in [
            ("Night shift", " NIGHT SHIFT "),
            ("straße", "STRASSE"),
            ("ﬁnance", "Finance"),
            ("Ａdmin", "admin"),
            ("é", "e\u{301}"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("admin", "ad\u{200b}min"),
            ("a\u{3000}b", "a b"),
        ] {
            assert_eq!(key(one), key(other), "{one:?} {other:?}");
        }
        assert_ne!(key("night"), key("nights"));
        assert_ne!(key("a b"), key("ab"));
    }

    #[test]
    fn a_name_in_a_mail_is_a_name() {
        assert_eq!(quoted(" Acme\r\nBcc: eve\u{2028}\tInc. "), "“Acme Bcc: eve Inc.”");
        assert_eq!(quoted("https://evil.example/x?a=b"), "“https: / / evil. example/ x? a= b”");
        for link in [
            "https://evil.example",
            "evil.example",
            "www.evil.example/path",
            "eve@evil.example",
            "evil。example",
            "evil．example",
        ] {
            let shown = quoted(link);
            let words: Vec<_> = shown.trim_matches(['“', '”']).split(' ').collect();
            let inner = |word: &&str| word.chars().rev().skip(1).any(|c| ".:/@。".contains(c));
            assert!(!words.iter().any(inner), "{shown}");
        }
        assert_eq!(quoted("a ” and “ b\""), "“a ' and ' b'”");
        assert_eq!(quoted("safe\u{202e}txt.exe"), "“safetxt. exe”");
        assert_eq!(quoted(&"x".repeat(300)), format!("“{}…”", "x".repeat(60)));
        // Nothing that NFKC makes long gets longer than that.
        assert!(quoted(&"\u{fdfa}".repeat(200)).chars().count() <= 63);
    }
}
