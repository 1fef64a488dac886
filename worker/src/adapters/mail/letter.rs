//! A mail as it is written: one text for those who read it plain and those who read it as HTML.

use std::fmt::Write as _;

use uuid::Uuid;

use super::mailer::Message;
use super::words::Words;

/// A mail to be.
pub struct Letter {
    words: &'static Words,
    subject: String,
    parts: Vec<Part>,
}

/// A paragraph.
enum Part {
    Text(String),
    Link(String),
    /// Something to copy.
    Code(String),
    /// Something of a list: its title, and more of it.
    Item(String, String),
}

impl Letter {
    /// An empty one.
    pub fn new(words: &'static Words, subject: String) -> Self {
        Self { words, subject, parts: Vec::new() }
    }

    /// Adds a paragraph.
    #[must_use]
    pub fn text(self, text: String) -> Self {
        self.with(Part::Text(text))
    }

    /// Adds a link.
    #[must_use]
    pub fn link(self, url: String) -> Self {
        self.with(Part::Link(url))
    }

    /// Adds something to copy.
    #[must_use]
    pub fn code(self, code: String) -> Self {
        self.with(Part::Code(code))
    }

    /// Adds something of a list.
    #[must_use]
    pub fn item(self, title: String, more: String) -> Self {
        self.with(Part::Item(title, more))
    }

    fn with(mut self, part: Part) -> Self {
        self.parts.push(part);
        self
    }

    /// The mail to somebody. `unsubscribe` is where a reader's program asks for no more like it; `id` is what tells that it is the same
    /// mail, if it is sent twice.
    pub fn to(self, to: String, unsubscribe: Option<String>, id: Uuid) -> Message {
        let (text, html) = (self.plain(), self.html());
        Message { to, subject: self.subject, text, html, unsubscribe, id }
    }

    fn plain(&self) -> String {
        let mut text = String::new();
        for part in &self.parts {
            // A String takes everything.
            let _ = match part {
                Part::Text(line) | Part::Link(line) | Part::Code(line) => write!(text, "{line}\n\n"),
                Part::Item(title, more) if more.is_empty() => write!(text, "* {title}\n\n"),
                Part::Item(title, more) => write!(text, "* {title}\n  {}\n\n", more.replace('\n', "\n  ")),
            };
        }
        format!("{}\n", text.trim_end())
    }

    fn html(&self) -> String {
        let mut body = String::new();
        for part in &self.parts {
            let _ = match part {
                Part::Text(text) => writeln!(body, "<p>{}</p>", escaped(text)),
                Part::Link(url) => writeln!(body, "<p><a href=\"{0}\">{0}</a></p>", escaped(url)),
                Part::Code(code) => writeln!(body, "<p><code>{}</code></p>", escaped(code)),
                Part::Item(title, more) => {
                    writeln!(body, "<p><strong>{}</strong><br>{}</p>", escaped(title), escaped(more))
                }
            };
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"{}\"><head><meta charset=\"utf-8\"><title>{}</title></head>\n\
             <body style=\"font-family: sans-serif; line-height: 1.5; max-width: 40em\">\n{body}</body></html>\n",
            self.words.language().as_str(),
            escaped(&self.subject),
        )
    }
}

/// Text in HTML: nothing in it is a tag.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\n' => html.push_str("<br>"),
            c => html.push(c),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use virtualstack_model::language::Language;

    use super::*;

    #[test]
    fn both_say_the_same_and_nothing_is_a_tag() {
        let letter = Letter::new(Words::of(Language::German), "<b>".to_owned())
            .text("a <script> & b".to_owned())
            .link("https://example.com/?a=\"1\"&b".to_owned())
            .code("t0k3n".to_owned())
            .item("one".to_owned(), "two\nthree".to_owned())
            .item("four".to_owned(), String::new());
        let mail = letter.to("ada@example.com".to_owned(), None, Uuid::now_v7());
        let text = "a <script> & b\n\nhttps://example.com/?a=\"1\"&b\n\nt0k3n\n\n* one\n  two\n  three\n\n* four\n";
        assert_eq!(mail.text, text);
        assert!(
            mail.html.contains("<html lang=\"de\">") && mail.html.contains("<title>&lt;b&gt;</title>"),
            "{}",
            mail.html
        );
        assert!(mail.html.contains("<p>a &lt;script&gt; &amp; b</p>"), "{}", mail.html);
        assert!(mail.html.contains("<a href=\"https://example.com/?a=&quot;1&quot;&amp;b\">"), "{}", mail.html);
        assert!(mail.html.contains("<strong>one</strong><br>two<br>three"), "{}", mail.html);
    }
}
