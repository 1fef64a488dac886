//! Plain text and the HTML of a desk, both ways.

use std::cell::{Cell, RefCell};
use std::fmt::Write as _;

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, CharacterTokens, EndTag, StartTag, TagToken, Token, TokenSink, TokenSinkResult, Tokenizer,
};
use uuid::Uuid;

/// What stands before our id in the last line of a text.
const MARK: &str = "VirtualStack ref ";

/// Characters of a text that is taken over, at most.
const LONGEST: usize = 20_000;

/// Bytes of HTML that are read of a text, at most. Mails have much of it for few words.
const MOST: usize = 4 << 20;

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
    let text = Text::of(&html[..html.floor_char_boundary(MOST)]);
    let text: String = text.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect();
    let text = text.trim_end();
    let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
    match last.trim().strip_prefix(MARK.trim_end()).and_then(|id| Uuid::try_parse(id.trim()).ok()) {
        Some(id) => (before.trim_end().chars().take(LONGEST).collect(), Some(id)),
        None => (text.chars().take(LONGEST).collect(), None),
    }
}

/// The text of HTML, by its tokens in their order: no tree is made of it, so neither depth nor tables cost anything.
#[derive(Default)]
struct Text {
    said: RefCell<String>,
    /// Within what is no text.
    is_raw: Cell<bool>,
}

impl Text {
    fn of(html: &str) -> String {
        let tokenizer = Tokenizer::new(Self::default(), Default::default());
        let queue = BufferQueue::default();
        queue.push_back(StrTendril::from(html));
        // No script is run, so nothing stops it before the end.
        let _ = tokenizer.feed(&queue);
        tokenizer.end();
        tokenizer.sink.said.into_inner()
    }

    /// Begins a line, after an empty one where a paragraph begins.
    fn line(&self, lines: usize) {
        let mut text = self.said.borrow_mut();
        let end = text.trim_end_matches(' ').len();
        text.truncate(end);
        if text.is_empty() {
            return;
        }
        let there = text.len() - text.trim_end_matches('\n').len();
        text.extend(std::iter::repeat_n('\n', lines.saturating_sub(there)));
    }

    /// Adds words, with one space between them.
    fn words(&self, said: &str) {
        let mut text = self.said.borrow_mut();
        for c in said.chars() {
            let is_space = c.is_ascii_whitespace();
            if !is_space {
                text.push(c);
            } else if !text.is_empty() && !text.ends_with([' ', '\n']) {
                text.push(' ');
            }
        }
    }
}

impl TokenSink for Text {
    type Handle = ();

    fn process_token(&self, token: Token, _: u64) -> TokenSinkResult<()> {
        match token {
            CharacterTokens(said) if !self.is_raw.get() => self.words(&said),
            TagToken(tag) => match (&*tag.name, tag.kind) {
                (
                    name @ ("script" | "style" | "title" | "textarea" | "iframe" | "noembed" | "noframes" | "xmp"),
                    kind,
                ) => {
                    self.is_raw.set(kind == StartTag);
                    if kind == StartTag {
                        let raw = if name == "script" { RawKind::ScriptData } else { RawKind::Rawtext };
                        return TokenSinkResult::RawData(raw);
                    }
                }
                ("br", _) => self.said.borrow_mut().push('\n'),
                ("p" | "h1" | "h2" | "h3" | "h4" | "h5" | "h6" | "blockquote" | "ul" | "ol" | "table" | "pre", _) => {
                    self.line(2)
                }
                ("div" | "tr" | "hr" | "dd" | "dt" | "section" | "article" | "header" | "footer", _) => self.line(1),
                ("li", StartTag) => {
                    self.line(1);
                    self.said.borrow_mut().push_str("- ");
                }
                ("td" | "th", EndTag) => self.words(" "),
                _ => {}
            },
            _ => {}
        }
        TokenSinkResult::Continue
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
            ("<ul><li>one<li>two</ul>", "- one\n- two"),
            ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
            ("a <script>", "a"),
            ("", ""),
        ] {
            assert_eq!(to_text(html), (text.to_owned(), None), "{html}");
        }
        // Neither depth nor width costs more than its length.
        let deep = format!("{}ok", "<table><tr><td>".repeat(200_000));
        assert_eq!(to_text(&deep), ("ok".to_owned(), None));
        let (text, _) = to_text(&"x".repeat(50_000));
        assert_eq!(text.chars().count(), LONGEST);
    }
}
