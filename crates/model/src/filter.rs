//! Filters of lists, after AIP-160: text → [`Filter`]. What the fields are is not known here.
//!
//! ```text
//! filter     = [ all ]
//! all        = any { [ "AND" ] any }             juxtaposed is AND
//! any        = not { "OR" not }                  binds tighter than AND
//! not        = [ "NOT" | "-" ] ( "(" all ")" | restriction | term )
//! restriction = field ( "=" | "!=" | "<" | "<=" | ">" | ">=" | ":" ) value
//! ```
//!
//! A term is a word or a quoted string to search for. A field may have a key: `labels.env`, `labels."app/tier"`. In
//! words and quoted strings `*` stands for anything; a backslash in quotes takes `"`, `\` and `*` as they are.
//! Bounded in length, depth and terms, so that a caller cannot make it recurse or compile for long.

use crate::error::{Error, Result};

/// Characters of a filter at most.
pub const MAX_LENGTH: usize = 2000;

/// Parentheses in parentheses at most.
pub const MAX_DEPTH: usize = 16;

/// Restrictions and terms at most.
pub const MAX_TERMS: usize = 64;

/// What rows must be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Every one of these; of none, every row is.
    All(Vec<Self>),
    /// One of these at least.
    Any(Vec<Self>),
    Not(Box<Self>),
    /// The text is somewhere in what the resource is searched by.
    Term(Pattern),
    Restriction(Restriction),
}

/// A field, how it compares, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restriction {
    /// Which character of the filter it begins at, from 1.
    pub at: usize,
    /// Name of the field, as JSON spells it.
    pub field: String,
    /// Key in the field, if it is a map.
    pub key: Option<String>,
    pub operator: Operator,
    pub value: Pattern,
}

/// How a field compares with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Has,
}

impl Operator {
    /// The longer ones first, since they begin with the shorter.
    const ALL: [Self; 7] =
        [Self::LessOrEqual, Self::GreaterOrEqual, Self::NotEqual, Self::Less, Self::Greater, Self::Equal, Self::Has];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::Has => ":",
        }
    }
}

/// Text with wildcards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl Pattern {
    /// What stands before, between and after the wildcards; of a text without any, the text.
    #[must_use]
    pub fn parts(&self) -> &[String] {
        &self.0
    }

    /// The text, for values that take no wildcards: `*` is a character like others.
    #[must_use]
    pub fn text(&self) -> String {
        self.0.join("*")
    }

    /// Whether it is a lone `*`.
    #[must_use]
    pub fn is_anything(&self) -> bool {
        self.0.len() == 2 && self.0.iter().all(String::is_empty)
    }

    fn of_word(word: &str) -> Self {
        Self(word.split('*').map(str::to_owned).collect())
    }
}

impl Filter {
    /// Whether every row is like it, since it asks nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::All(parts) if parts.is_empty())
    }

    /// Reads a filter.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT on `filter` that says what is wrong, and at which character.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text: text.chars().collect(), position: 0, depth: 0, terms: 0 };
        if parser.text.len() > MAX_LENGTH {
            return Err(Error::invalid("filter", format!("must have at most {MAX_LENGTH} characters")));
        }
        if let Some(position) = parser.text.iter().position(|character| *character == '\0') {
            return Err(error_at(position + 1, "stands a NUL, which no text has"));
        }
        parser.space();
        if parser.peek().is_none() {
            return Ok(Self::All(Vec::new()));
        }
        let filter = parser.all()?;
        match parser.peek() {
            None => Ok(filter),
            Some(_) => Err(parser.error("\")\" closes nothing")),
        }
    }
}

/// A filter is wrong, at a character counted from 1.
#[must_use]
pub fn error_at(at: usize, what: &str) -> Error {
    Error::invalid("filter", format!("at character {at}: {what}"))
}

struct Parser {
    text: Vec<char>,
    position: usize,
    depth: usize,
    terms: usize,
}

impl Parser {
    fn all(&mut self) -> Result<Filter> {
        let mut parts = vec![self.any()?];
        loop {
            self.space();
            if !self.keyword("AND") && matches!(self.peek(), None | Some(')')) {
                return Ok(one_or(parts, Filter::All));
            }
            parts.push(self.any()?);
        }
    }

    fn any(&mut self) -> Result<Filter> {
        let mut parts = vec![self.not()?];
        loop {
            self.space();
            if !self.keyword("OR") {
                return Ok(one_or(parts, Filter::Any));
            }
            parts.push(self.not()?);
        }
    }

    fn not(&mut self) -> Result<Filter> {
        self.space();
        if self.keyword("NOT") {
            self.space();
        } else if !self.eat("-") {
            return self.simple();
        }
        Ok(Filter::Not(Box::new(self.simple()?)))
    }

    fn simple(&mut self) -> Result<Filter> {
        if !self.eat("(") {
            return self.restriction();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(&format!("more than {MAX_DEPTH} parentheses in each other")));
        }
        let filter = self.all()?;
        if !self.eat(")") {
            return Err(self.error("\")\" is missing"));
        }
        self.depth -= 1;
        Ok(filter)
    }

    fn restriction(&mut self) -> Result<Filter> {
        let at = self.position + 1;
        self.terms += 1;
        if self.terms > MAX_TERMS {
            return Err(self.error(&format!("more than {MAX_TERMS} terms")));
        }
        if ["AND", "OR", "NOT"].into_iter().any(|word| self.keyword(word)) || self.eat("-") {
            return Err(error_at(at, "a field or a term is missing; what stands here is one in quotes only"));
        }
        let (operand, key) = if self.peek() == Some('"') {
            (self.quoted()?, None)
        } else {
            let word =
                self.word(|parser| parser.peek().is_some_and(|next| !"=<>:".contains(next)) && !parser.follows("!="))?;
            match (word.strip_suffix('.'), self.peek()) {
                (Some(field), Some('"')) => (Pattern::of_word(field), Some(self.quoted()?.text())),
                _ => (Pattern::of_word(&word), None),
            }
        };
        self.space();
        let Some(operator) = Operator::ALL.into_iter().find(|operator| self.eat(operator.as_str())) else {
            return match key {
                None => Ok(Filter::Term(operand)),
                Some(_) => Err(self.error("a comparison is missing")),
            };
        };
        self.space();
        let value = if self.peek() == Some('"') {
            self.quoted()?
        } else {
            // A value may hold what compares: times and addresses do.
            Pattern::of_word(&self.word(|_| true)?)
        };
        let operand = operand.text();
        let (field, key) = match (operand.split_once('.'), key) {
            (Some((field, key)), None) => (field.to_owned(), Some(key.to_owned())),
            (_, key) => (operand, key),
        };
        Ok(Filter::Restriction(Restriction { at, field, key, operator, value }))
    }

    /// The characters up to a space, a parenthesis, a quote, or where `more` ends it.
    fn word(&mut self, more: impl Fn(&Self) -> bool) -> Result<String> {
        let start = self.position;
        while self.peek().is_some_and(|next| !next.is_whitespace() && !"()\"".contains(next)) && more(self) {
            self.position += 1;
        }
        match self.peek() {
            Some('(') if self.position > start => Err(self.error("there are no functions")),
            _ if self.position == start => Err(self.error("a field, a term or a value is missing")),
            _ => Ok(self.text[start..self.position].iter().collect()),
        }
    }

    fn quoted(&mut self) -> Result<Pattern> {
        let at = self.position + 1;
        self.position += 1;
        let mut parts = vec![String::new()];
        loop {
            let mut next = self.peek().ok_or_else(|| error_at(at, "the quote is not closed"))?;
            self.position += 1;
            match next {
                '"' => return Ok(Pattern(parts)),
                '*' => {
                    parts.push(String::new());
                    continue;
                }
                '\\' => {
                    next = self
                        .peek()
                        .filter(|escaped| "\"\\*".contains(*escaped))
                        .ok_or_else(|| self.error("after a backslash only \\, \" and * can stand"))?;
                    self.position += 1;
                }
                _ => {}
            }
            if let Some(part) = parts.last_mut() {
                part.push(next);
            }
        }
    }

    fn peek(&self) -> Option<char> {
        self.text.get(self.position).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.position += 1;
        }
    }

    fn follows(&self, word: &str) -> bool {
        let rest = self.text.get(self.position..).unwrap_or_default();
        word.chars().enumerate().all(|(index, character)| rest.get(index) == Some(&character))
    }

    fn eat(&mut self, word: &str) -> bool {
        let follows = self.follows(word);
        if follows {
            self.position += word.chars().count();
        }
        follows
    }

    /// Eats a word of the grammar, which is one only if nothing continues it.
    fn keyword(&mut self, word: &str) -> bool {
        let after = self.text.get(self.position + word.len());
        after.is_none_or(|next| next.is_whitespace() || "()\"".contains(*next)) && self.eat(word)
    }

    fn error(&self, what: &str) -> Error {
        error_at(self.position + 1, what)
    }
}

fn one_or(mut parts: Vec<Filter>, all: fn(Vec<Filter>) -> Filter) -> Filter {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        last => {
            parts.extend(last);
            all(parts)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter as one line, every group in brackets.
    fn shown(filter: &Filter) -> String {
        let group = |name: &str, parts: &[Filter]| {
            format!("{name}[{}]", parts.iter().map(shown).collect::<Vec<_>>().join(", "))
        };
        let pattern = |pattern: &Pattern| format!("‹{}›", pattern.parts().join("…"));
        match filter {
            Filter::All(parts) => group("all", parts),
            Filter::Any(parts) => group("any", parts),
            Filter::Not(part) => format!("not {}", shown(part)),
            Filter::Term(term) => pattern(term),
            Filter::Restriction(Restriction { field, key, operator, value, .. }) => {
                let key = key.as_ref().map(|key| format!("[{key}]")).unwrap_or_default();
                format!("{field}{key} {} {}", operator.as_str(), pattern(value))
            }
        }
    }

    #[test]
    fn filters_are_read() {
        for (text, expected) in [
            ("", "all[]"),
            (" \t ", "all[]"),
            ("ada", "‹ada›"),
            (r#"ada "van rossum""#, "all[‹ada›, ‹van rossum›]"),
            ("a AND b OR c AND d", "all[‹a›, any[‹b›, ‹c›], ‹d›]"),
            ("a b OR c", "all[‹a›, any[‹b›, ‹c›]]"),
            ("(a b) OR c", "any[all[‹a›, ‹b›], ‹c›]"),
            ("NOT a -b - c", "error"),
            ("NOT a -b", "all[not ‹a›, not ‹b›]"),
            ("NOT (a OR b) -(c)", "all[not any[‹a›, ‹b›], not ‹c›]"),
            ("-state=RUNNING", "not state = ‹RUNNING›"),
            ("state = RUNNING", "state = ‹RUNNING›"),
            ("state!=RUNNING", "state != ‹RUNNING›"),
            ("hey! x!=1", "all[‹hey!›, x != ‹1›]"),
            ("a<1 b<=2 c>3 d>=-4", "all[a < ‹1›, b <= ‹2›, c > ‹3›, d >= ‹-4›]"),
            ("createTime >= 2026-01-02T03:04:05+02:00", "createTime >= ‹2026-01-02T03:04:05+02:00›"),
            ("displayName:web", "displayName : ‹web›"),
            (r#"displayName = "web*""#, "displayName = ‹web…›"),
            ("displayName = *web*", "displayName = ‹…web…›"),
            (r#"displayName = "a\"b\\c\*d""#, r#"displayName = ‹a"b\c*d›"#),
            (r#"displayName = """#, "displayName = ‹›"),
            (r#""displayName" = x"#, "displayName = ‹x›"),
            (r#"labels.env = "prod""#, "labels[env] = ‹prod›"),
            ("labels.app.kubernetes.io/name=x", "labels[app.kubernetes.io/name] = ‹x›"),
            (r#"labels."a b=c":"d""#, "labels[a b=c] : ‹d›"),
            ("labels:env", "labels : ‹env›"),
            ("labels.env:*", "labels[env] : ‹…›"),
            ("permissions:vm:read", "permissions : ‹vm:read›"),
            ("ada@example.com web-1", "all[‹ada@example.com›, ‹web-1›]"),
            (r#"ANDY ORB NOTHING "AND""#, "all[‹ANDY›, ‹ORB›, ‹NOTHING›, ‹AND›]"),
            ("'; DROP TABLE x --", "error"),
            ("名前 = 値", "名前 = ‹値›"),
        ] {
            let read = Filter::parse(text).map_or_else(|_| "error".to_owned(), |filter| shown(&filter));
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn errors_say_where() {
        for (text, at, what) in [
            ("a AND", 6, "is missing"),
            ("AND a", 1, "is missing"),
            ("a OR OR b", 6, "is missing"),
            ("NOT NOT a", 5, "is missing"),
            ("a =", 4, "is missing"),
            ("a = (b OR c)", 5, "is missing"),
            ("= b", 1, "is missing"),
            ("()", 2, "is missing"),
            ("- a", 2, "is missing"),
            ("(a", 3, "is missing"),
            ("a)", 2, "closes nothing"),
            ("a = \"b", 5, "not closed"),
            (r#"a = "\n""#, 7, "backslash"),
            ("size(a) > 1", 5, "no functions"),
            ("labels.\"a\"", 11, "comparison is missing"),
            ("a\0", 2, "NUL"),
            ("名前 = \"", 6, "not closed"),
        ] {
            let error = Filter::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(&format!("filter: at character {at}: ")), "{text}: {error}");
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    #[test]
    fn it_is_bounded() {
        let parse = |text: String| Filter::parse(&text).map_err(|error| error.to_string());
        let nested = |depth| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(parse(nested(MAX_DEPTH)), Ok(Filter::Term(Pattern::of_word("a"))));
        assert!(parse(nested(MAX_DEPTH + 1)).expect_err("deep").contains("in each other"));
        assert!(parse("(a) ".repeat(MAX_DEPTH + 1)).is_ok(), "side by side is not deep");
        assert!(parse("(".repeat(MAX_LENGTH)).is_err());
        assert!(parse("-".repeat(MAX_LENGTH)).is_err());
        assert!(parse("NOT ".repeat(MAX_LENGTH / 4)).is_err());
        assert!(parse("a ".repeat(MAX_TERMS)).is_ok());
        assert!(parse("a ".repeat(MAX_TERMS + 1)).expect_err("many").contains("terms"));
        assert!(parse("é".repeat(MAX_LENGTH)).is_ok(), "characters, not bytes");
        assert!(parse("a".repeat(MAX_LENGTH + 1)).expect_err("long").contains("at most"));
    }

    #[test]
    fn nothing_makes_it_panic() {
        const PIECES: &[&str] = &[
            "a",
            "state",
            "labels.",
            ".",
            "\"",
            "\\",
            "*",
            "=",
            "!",
            "!=",
            "<",
            ">=",
            ":",
            "(",
            ")",
            "-",
            " ",
            "\t",
            "AND",
            " OR ",
            "NOT ",
            "é",
            "\u{1F600}",
            "\0",
            "\u{202E}",
            "'",
            "%",
            "_",
            ",",
            "2026-01-01T00:00:00Z",
        ];
        let (mut random, mut read) = (fastrand::Rng::with_seed(1), 0);
        for _ in 0..50_000 {
            let text: String = (0..random.usize(..24)).map(|_| PIECES[random.usize(..PIECES.len())]).collect();
            match Filter::parse(&text) {
                Ok(_) => read += 1,
                Err(error) => assert_eq!(error.reason(), "INVALID_FIELDS"),
            }
        }
        assert!(read > 1_000, "some of them are filters: {read}");
    }
}
