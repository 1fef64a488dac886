//! Names of inventory objects. In them a vCenter writes slash, backslash and percent sign as escapes, since its paths are made of
//! slashes, and it wants percent signs written so.

const ESCAPES: [(char, &str); 3] = [('%', "%25"), ('/', "%2f"), ('\\', "%5c")];

/// A name as people gave it. Other percent signs stand for themselves.
pub(super) fn unescaped(name: &str) -> String {
    let mut plain = String::with_capacity(name.len());
    let mut left = name;
    while let Some(at) = left.find('%') {
        plain.push_str(&left[..at]);
        left = &left[at..];
        let found = ESCAPES.iter().find(|(_, escape)| left.get(..3).is_some_and(|it| it.eq_ignore_ascii_case(escape)));
        plain.push(found.map_or('%', |(character, _)| *character));
        left = &left[found.map_or(1, |_| 3)..];
    }
    plain.push_str(left);
    plain
}

/// A name as a vCenter writes it. One that is escaped already, as tools show it, stays as it is.
pub(super) fn escaped(name: &str) -> String {
    let escape = |character: char| {
        let found = ESCAPES.iter().find(|(known, _)| *known == character);
        found.map_or_else(|| character.to_string(), |(_, escape)| (*escape).to_owned())
    };
    unescaped(name).chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_people_gave() {
        for (written, plain) in [
            ("debian-12", "debian-12"),
            ("a%2fb%5cc%25d", r"a/b\c%d"),
            ("a%2Fb%5Cc", r"a/b\c"),
            // Undone once: what looks like an escape then is none.
            ("%252f", "%2f"),
            ("50%25 off", "50% off"),
            ("100%", "100%"),
            ("%2", "%2"),
            ("%41%zz%é", "%41%zz%é"),
            ("", ""),
        ] {
            assert_eq!(unescaped(written), plain, "{written}");
        }
        for (plain, written) in [(r"a/b\c%d", "a%2fb%5cc%25d"), ("a%2Fb", "a%2fb"), ("100%", "100%25"), ("web", "web")]
        {
            assert_eq!(escaped(plain), written);
            assert_eq!(escaped(&escaped(plain)), written, "it is not escaped twice");
        }
    }
}
