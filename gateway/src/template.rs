//! Path templates of `google.api.http`, and the decoding of the paths that match them.

use std::ops::Range;

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    Literal(String),
    One,
    /// `**`: all that is left, nothing included.
    Rest,
}

/// A part of the path that fills a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    /// Path of the field, in the names of the proto.
    pub(crate) field: String,
    pub(crate) segments: Range<usize>,
    /// Whether it can hold a slash.
    pub(crate) many: bool,
    /// Whether it goes on to the path's end.
    rest: bool,
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) segments: Vec<Segment>,
    pub(crate) variables: Vec<Variable>,
    /// The custom verb after the last colon; empty when there is none.
    pub(crate) verb: String,
}

impl Template {
    /// Parses a template; says what is wrong with it otherwise.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = text.strip_prefix('/').ok_or("a template begins with a slash")?;
        let tail = rest.rfind(['}', '/']).map_or(0, |at| at + 1);
        let (path, verb) = match rest[tail..].find(':') {
            Some(colon) => (&rest[..tail + colon], &rest[tail + colon + 1..]),
            None => (rest, ""),
        };
        let mut template = Self { segments: Vec::new(), variables: Vec::new(), verb: verb.to_owned() };
        let mut left = path;
        while !left.is_empty() {
            left = if let Some(inner) = left.strip_prefix('{') {
                let (variable, after) = inner.split_once('}').ok_or("a brace is not closed")?;
                template.variable(variable)?;
                after
            } else {
                let end = left.find('/').unwrap_or(left.len());
                template.segment(&left[..end])?;
                &left[end..]
            };
            left = match left.strip_prefix('/') {
                Some("") => return Err("a template does not end with a slash"),
                Some(next) => next,
                None if left.is_empty() => left,
                None => return Err("a variable is a whole segment"),
            };
        }
        let rest = template.segments.iter().position(|segment| *segment == Segment::Rest);
        if rest.is_some_and(|at| at + 1 != template.segments.len()) {
            return Err("** is the last segment");
        }
        Ok(template)
    }

    fn variable(&mut self, text: &str) -> Result<(), &'static str> {
        let (field, pattern) = text.split_once('=').unwrap_or((text, "*"));
        let start = self.segments.len();
        for segment in pattern.split('/') {
            self.segment(segment)?;
        }
        let segments = start..self.segments.len();
        let covered = &self.segments[start..];
        let (many, rest) = (covered != [Segment::One], covered.last() == Some(&Segment::Rest));
        self.variables.push(Variable { field: field.to_owned(), segments, many, rest });
        Ok(())
    }

    fn segment(&mut self, text: &str) -> Result<(), &'static str> {
        self.segments.push(match text {
            "" => return Err("a segment is empty"),
            "*" => Segment::One,
            "**" => Segment::Rest,
            literal if literal.contains(['{', '}', '*']) => return Err("a segment is a literal, * or **"),
            literal => Segment::Literal(literal.to_owned()),
        });
        Ok(())
    }
}

impl Variable {
    /// The variable's value in a path that matched.
    pub(crate) fn value(&self, raw: &[&str]) -> Option<String> {
        if !self.many {
            return decode(raw[self.segments.start], false);
        }
        let end = if self.rest { raw.len() } else { self.segments.end };
        let parts: Option<Vec<_>> = raw[self.segments.start..end].iter().map(|part| decode(part, true)).collect();
        Some(parts?.join("/"))
    }
}

/// Percent-decodes; none if an escape is malformed or the result is not UTF-8. An encoded slash stays as it is where
/// the value can hold slashes of its own, so that no one can smuggle one in.
pub(crate) fn decode(text: &str, keep_slash: bool) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (high, low) = (bytes.next()?, bytes.next()?);
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match digit(high)? << 4 | digit(low)? {
            b'/' if keep_slash => out.extend([b'%', high, low]),
            decoded => out.push(decoded),
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::{Segment, Template, decode};

    #[test]
    fn parses_every_form() {
        let template = Template::parse("/v1/{vm.name=vms/*}:start").expect("valid");
        assert_eq!(template.segments, [Segment::Literal("v1".into()), Segment::Literal("vms".into()), Segment::One]);
        assert_eq!((template.verb.as_str(), template.variables[0].segments.clone()), ("start", 1..3));
        assert!(template.variables[0].many);

        assert_eq!(Template::parse("/v1/auth:login").expect("valid").verb, "login");
        assert!(!Template::parse("/v1/{id}").expect("valid").variables[0].many);
        assert_eq!(Template::parse("/v1/{path=**}:x").expect("valid").segments[1], Segment::Rest);
    }

    #[test]
    fn refuses_what_is_not_a_template() {
        for bad in ["v1", "/v1/", "/v1//a", "/v1/{a", "/v1/{a}b", "/v1/{a=**}/b", "/v1/a*", "/{a=}"] {
            assert!(Template::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn decodes_percent() {
        assert_eq!(decode("a%20b%2Fc", false).as_deref(), Some("a b/c"));
        assert_eq!(decode("a%20b%2fc", true).as_deref(), Some("a b%2fc"));
        for bad in ["%", "%2", "%zz", "%ff", "%+1"] {
            assert_eq!(decode(bad, false), None, "{bad}");
        }
    }
}
