//! Bounds of a descriptor that are held before a tree is built of it: what the tree costs, and how long building it takes.

/// Of elements inside one another; ten are usual.
const MAX_DEPTH: usize = 64;
/// Of one element. A tree compares each with all others.
const MAX_ATTRIBUTES: usize = 64;
/// Anywhere: the tree takes memory for each.
const MAX_TAGS: usize = 40_000;
const MAX_EQUALS: usize = 40_000;
/// Each element that names some gets a list of all.
const MAX_NAMESPACES: usize = 512;

/// What a descriptor has that it must not have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// It stands at a byte.
    DocumentType(usize),
    /// At a byte, there is more than this.
    Bounds(usize, String),
}

/// Goes through the text once. What is not well-formed is left to the parser.
pub(super) fn survey(text: &str) -> Result<(), Excess> {
    let most = |count: usize, limit: usize, what: &str| match count > limit {
        true => Err(Excess::Bounds(0, format!("at most {limit} {what}"))),
        false => Ok(()),
    };
    most(text.bytes().filter(|byte| *byte == b'<').count(), MAX_TAGS, "tags")?;
    most(text.bytes().filter(|byte| *byte == b'=').count(), MAX_EQUALS, "attributes")?;
    most(text.matches("xmlns").count(), MAX_NAMESPACES, "declarations of namespaces")?;
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(start) = text[at..].find('<') {
        at += start;
        let rest = &text[at..];
        let length = match rest {
            _ if rest.starts_with("<!--") => end(rest, "-->"),
            _ if rest.starts_with("<![CDATA[") => end(rest, "]]>"),
            _ if rest.starts_with("<?") => end(rest, "?>"),
            _ if rest.starts_with("<!") => return Err(Excess::DocumentType(at)),
            _ if rest.starts_with("</") => {
                depth = depth.saturating_sub(1);
                end(rest, ">")
            }
            _ => {
                let (length, attributes, is_empty) = tag(rest);
                if attributes > MAX_ATTRIBUTES {
                    return Err(Excess::Bounds(at, format!("at most {MAX_ATTRIBUTES} attributes of an element")));
                }
                depth += usize::from(!is_empty);
                if depth > MAX_DEPTH {
                    return Err(Excess::Bounds(at, format!("at most {MAX_DEPTH} elements inside one another")));
                }
                length
            }
        };
        at += length;
    }
    Ok(())
}

/// The length up to and with a mark.
fn end(rest: &str, mark: &str) -> usize {
    rest.find(mark).map_or(rest.len(), |at| at + mark.len())
}

/// The length of a tag, how many attributes it has, and whether it ends its element.
fn tag(rest: &str) -> (usize, usize, bool) {
    let (mut quote, mut attributes, mut last) = (None, 0, 0);
    for (at, byte) in rest.bytes().enumerate() {
        match (quote, byte) {
            (Some(open), _) if open == byte => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'=') => attributes += 1,
            (None, b'>') => return (at + 1, attributes, last == b'/'),
            (None, _) => {}
        }
        last = byte;
    }
    (rest.len(), attributes, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_told_where_they_are_exceeded() {
        assert_eq!(survey("<?xml version='1.0'?><!-- <!DOCTYPE --><a b='>' c=\"<\"><![CDATA[<!x]]></a>"), Ok(()));
        assert_eq!(survey("<?xml version='1.0'?><!DOCTYPE a []><a/>"), Err(Excess::DocumentType(21)));
        assert_eq!(survey(&"<a>".repeat(64)), Ok(()));
        assert!(matches!(survey(&"<a>".repeat(65)), Err(Excess::Bounds(192, _))));
        assert_eq!(survey(&"<a></a><b/>".repeat(1000)), Ok(()));
        assert!(matches!(survey(&format!("<a {}>", "x='1' ".repeat(65))), Err(Excess::Bounds(0, _))));
        assert!(matches!(survey(&"<".repeat(40_001)), Err(Excess::Bounds(0, _))));
        assert!(matches!(survey(&"=".repeat(40_001)), Err(Excess::Bounds(0, _))));
        assert!(matches!(survey(&"<a xmlns:b='c'/>".repeat(513)), Err(Excess::Bounds(0, _))));
    }
}
