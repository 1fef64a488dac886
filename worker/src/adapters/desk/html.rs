//! Plain text and the HTML of a desk, both ways.

use std::fmt::Write as _;

use uuid::Uuid;

/// What stands before our id in the last line of a text.
const MARK: &str = "VirtualStack ref ";

/// Columns beyond which lines would be broken: none are.
const WIDE: usize = 1_000_000;

/// Characters of a text that is taken over, at most.
const LONGEST: usize = 20_000;

/// Plain text as HTML: nothing in it is a tag.
pub(super) fn from_text(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + text.len() / 8);
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\n' => html.push_str("<br>"),
            '\r' => {}
            c => html.push(c),
        }
    }
    html
}

/// The same with our id in its last line.
pub(super) fn marked(text: &str, id: Uuid) -> String {
    let mut html = from_text(text);
    // A String takes everything.
    let _ = write!(html, "<br><br>{MARK}{id}");
    html
}

/// HTML as plain text, and our id if its last line has one.
pub(super) fn to_text(html: &str) -> (String, Option<Uuid>) {
    let text = html2text::config::plain_no_decorate().string_from_read(html.as_bytes(), WIDE);
    // What cannot be read is shown as it is: it is plain text to whoever reads it.
    let text = text.unwrap_or_else(|_| html.to_owned());
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let text = text.trim_end();
    let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
    match last.trim().strip_prefix(MARK.trim_end()).and_then(|id| Uuid::try_parse(id.trim()).ok()) {
        Some(id) => (before.trim_end().chars().take(LONGEST).collect(), Some(id)),
        None => (text.chars().take(LONGEST).collect(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_as_it_was() {
        let id = Uuid::now_v7();
        for text in [
            "hello",
            "two\nlines",
            "a < b && c > d \"quoted\"",
            "<script>alert(1)</script>",
            "&amp; is no entity",
            "umlauts äöü and 🐎",
            "VirtualStack ref",
        ] {
            let html = marked(text, id);
            assert!(!html.contains("<script"), "{html}");
            assert_eq!(to_text(&html), (text.to_owned(), Some(id)), "{html}");
        }
    }

    #[test]
    fn html_is_read_and_never_kept() {
        for (html, text) in [
            ("<div>Please <b>restart</b> it.</div><div>Thanks</div>", "Please restart it.\nThanks"),
            ("<p>one</p><p>two</p>", "one\n\ntwo"),
            ("<script>alert(1)</script>ok", "ok"),
            ("<style>p{}</style><p>ok</p>", "ok"),
            ("<img src=x onerror=alert(1)>ok", "ok"),
            ("a<br>b", "a\nb"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(to_text(html), (text.to_owned(), None), "{html}");
        }
        let (text, _) = to_text(&"x".repeat(50_000));
        assert_eq!(text.chars().count(), LONGEST);
    }
}
