//! Which passwords are too easily guessed.
//!
//! Guessing starts from lists of what people chose before and adds digits, so a password is judged by what is left of it
//! without them. Nothing is asked of the kinds of characters: that makes people choose `Password123!`.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::LazyLock;

use unicode_normalization::UnicodeNormalization as _;

/// Characters (Unicode scalar values) of a password.
pub const LENGTH: RangeInclusive<usize> = 12..=128;

/// Words of fewer characters are too few to recognize a password by.
const SHORTEST_WORD: usize = 4;

/// What people choose, in lower case; see password/README.md.
static COMMON: LazyLock<HashSet<&str>> = LazyLock::new(|| include_str!("password/common.txt").lines().collect());

/// Where a finger goes along, forth or back: no row has a character twice.
const ROWS: &[&str] = &[
    "abcdefghijklmnopqrstuvwxyz",
    "1234567890",
    "!@#$%^&*()_+",
    "qwertyuiop[]asdfghjkl;'zxcvbnm,./",
    "qwertyuiopasdfghjklzxcvbnm",
    "qwertzuiopasdfghjklyxcvbnm",
    "azertyuiopqsdfghjklmwxcvbn",
    "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/",
    "1q2w3e4r5t6y7u8i9o0p",
];

/// The form in which passwords are hashed: keyboards make the same letters of different characters.
#[must_use]
pub fn normalize(password: &str) -> String {
    password.nfkc().collect()
}

/// Checks how long a normalised password is.
pub fn check_length(password: &str) -> Result<(), &'static str> {
    if LENGTH.contains(&password.chars().count()) { Ok(()) } else { Err("must have 12 to 128 characters") }
}

/// Checks a password that somebody chooses, in its normalised form. `about` is what is known of them: their address, their name. The error says
/// what is wrong, as the end of a sentence that begins with the field.
pub fn check(password: &str, about: &[&str]) -> Result<(), &'static str> {
    let password = normalize(password);
    check_length(&password)?;
    let about: Vec<_> = about.iter().flat_map(|text| words(&text.to_lowercase())).collect();
    judge(&password.to_lowercase(), &about)
}

/// What of an address or a name may stand in a password: all of it, what is before the @, and each part.
fn words(text: &str) -> Vec<String> {
    let local = text.split('@').next().unwrap_or_default();
    let parts = text.split(|c: char| !c.is_alphanumeric());
    let words = parts.map(str::to_owned).chain([keep(text, char::is_alphanumeric), keep(local, char::is_alphanumeric)]);
    words.filter(|word| word.chars().count() >= SHORTEST_WORD).collect()
}

fn judge(password: &str, about: &[String]) -> Result<(), &'static str> {
    let length = password.chars().count();
    let forms = [password.to_owned(), keep(password, char::is_alphanumeric), keep(password, char::is_alphabetic)];
    for form in &forms {
        let chars: Vec<char> = form.chars().collect();
        // A form that leaves out the most of a password says nothing about it.
        if chars.len() * 2 < length {
            continue;
        }
        if COMMON.contains(form.as_str()) {
            return Err("is among the commonest passwords");
        }
        if has_common_core(form) {
            return Err("is among the commonest passwords but for what is added to it");
        }
        if about.iter().any(|word| is_padded(form, word)) {
            return Err("is made of your own address or name");
        }
        if runs(&chars) * 3 <= chars.len() {
            return Err("is a plain sequence");
        }
        if let Some(unit) = repeated(&chars) {
            // Repeating makes nothing harder to guess.
            if unit.len() < *LENGTH.start() {
                return Err("repeats a few characters");
            }
            judge(&unit.iter().collect::<String>(), about)?;
        }
    }
    Ok(())
}

fn keep(text: &str, which: fn(char) -> bool) -> String {
    text.chars().filter(|c| which(*c)).collect()
}

/// Whether a common password is all of `text` but for characters before and after it that are no letters.
fn has_common_core(text: &str) -> bool {
    let letters = text.find(char::is_alphabetic).zip(text.rfind(char::is_alphabetic));
    let bounds = text.char_indices().map(|(at, _)| at).chain([text.len()]);
    let (first, last, shortest) = match letters {
        Some((first, last)) => (first, last + 1, SHORTEST_WORD),
        // No letter to hold on to: half of it will do.
        None => (text.len(), 0, text.len() / 2),
    };
    let bounds: Vec<_> = bounds.collect();
    let from = bounds.iter().filter(|at| **at <= first);
    from.flat_map(|from| bounds.iter().map(move |to| (*from, *to)))
        .filter(|(from, to)| *to >= last && *to >= from + shortest)
        .any(|(from, to)| COMMON.contains(&text[from..to]))
}

/// Whether `word` is all of `text` but for characters before and after it that are no letters.
fn is_padded(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        !text[..at].contains(char::is_alphabetic) && !text[at + word.len()..].contains(char::is_alphabetic)
    })
}

/// How many runs it takes to type `chars`: one character again and again, or along a row.
fn runs(mut chars: &[char]) -> usize {
    let mut runs = 0;
    while let Some(first) = chars.first() {
        let same = chars.iter().take_while(|c| *c == first).count();
        let along = ROWS.iter().flat_map(|row| [1, row.len() - 1].map(|step| along(row, step, chars))).max();
        chars = &chars[same.max(along.unwrap_or_default())..];
        runs += 1;
    }
    runs
}

/// How many of the first `chars` follow each other in `row`, `step` places on, round its end.
fn along(row: &str, step: usize, chars: &[char]) -> usize {
    let follow = |pair: &&[char]| match (row.find(pair[0]), row.find(pair[1])) {
        (Some(a), Some(b)) => (a + step) % row.len() == b,
        _ => false,
    };
    1 + chars.windows(2).take_while(follow).count()
}

/// What `chars` repeat at least once, the last time maybe in part.
fn repeated(chars: &[char]) -> Option<&[char]> {
    (1..=chars.len() / 2)
        .find(|&period| chars.iter().zip(&chars[period..]).all(|(a, b)| a == b))
        .map(|period| &chars[..period])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADA: &[&str] = &["Ada.Lovelace@example.com", "Ada Lovelace"];

    #[track_caller]
    fn refused(why: &str, passwords: &[&str]) {
        for password in passwords {
            let problem = check(password, ADA).expect_err(password);
            assert!(problem.contains(why), "{password}: {problem}");
        }
    }

    #[test]
    fn what_nobody_guesses_is_good() {
        for password in [
            "correct horse battery",
            "correct-horse-battery-staple",
            "correcthorsebattery",
            "tr0ub4dor&3x",
            "hQ7!vz2#Lm9p",
            "k4n2sdg7qpxw9mzbt3ch",
            "Ada met a horse in March",
            "пять белых слонов",
            "四つの馬が電池を正しく食べる",
            "839201748265",
            "lovelace and babbage",
        ] {
            assert_eq!(check(password, ADA), Ok(()), "{password}");
        }
    }

    #[test]
    fn length_counts_characters_as_they_are_hashed() {
        refused("12 to 128", &["", "hQ7!vz2#Lm9", "éééééé", &"hQ7!vz2#Lm9p".repeat(11)]);
        let long: String = (0..128).map(|i| char::from(b'a' + (i * i * 7 % 131 % 26) as u8)).collect();
        assert_eq!(check(&long, &[]), Ok(()));
        assert!(check(&format!("{long}x"), &[]).is_err());
        // Six letters with a mark each are six, and a hundred of them no more than that.
        refused("12 to 128", &["e\u{301}a\u{300}o\u{308}u\u{308}i\u{302}n\u{303}"]);
        assert_eq!(
            check(&long.chars().map(|c| format!("{c}\u{30c}")).collect::<String>(), &[]),
            check(&long.chars().map(|c| format!("{c}\u{30c}").nfkc().collect::<String>()).collect::<String>(), &[])
        );
        // Twelve characters, though more bytes, and more characters in lower case.
        assert_eq!(check("İstanbul'u77", &[]), Ok(()));
    }

    #[test]
    fn the_commonest_are_refused_however_they_are_dressed() {
        refused("commonest", &["justinbieber", "JustinBieber", "1q2w3e4r5t6y", "qwertyuiop[]", "international"]);
        refused(
            "but for what is added",
            &["password2024", "Password!!!!!!", "2024monkey2024", "!!!P@ssw0rd!1!1", "dragon 12/2019"],
        );
        refused("but for what is added", &["123456 73914", "123456839201", "  password  "]);
        refused("commonest", &["p.a.s.s.w.o.r.d.", "professional-professional", "international international 99"]);
    }

    #[test]
    fn repeating_adds_nothing() {
        refused("repeats", &["passwordpassword", "password password", "Monkey1Monkey2", "monkey monkey monkey"]);
        refused("repeats", &["xk4vxk4vxk4v", "xk4v-xk4v-xk4v", "xk4vq9pzxk4vq9pz", "xyxyxyxyxyxyx"]);
        // In whatever width it is typed.
        refused("commonest", &["ｐａｓｓｗｏｒｄ１２３４"]);
        refused("sequence", &["aaaaaaaaaaaa", "            ", "aaaabbbbcccc", "éééééééééééé"]);
    }

    #[test]
    fn sequences_are_refused() {
        refused(
            "sequence",
            &["abcdefghijkl", "ABCDEFGHIJKL", "lkjihgfedcba", "klmnopqrstuvwxyzabc", "abcdefghijkl!", "abc345xyz789"],
        );
        refused("sequence", &["yxcvbnmasdfghj", "2wsx3edc4rfv"]);
        // Lists have these.
        refused(
            "",
            &[
                "zxcvbnm,./12",
                "123456789012",
                "234567890123",
                "098765432109",
                "qwertyuiop12",
                "qwertyuiopasdf",
                "abcdefgh2024!!",
            ],
        );
    }

    #[test]
    fn what_others_know_of_a_person_is_refused() {
        refused(
            "your own",
            &[
                "ada.lovelace@example.com",
                "AdaLovelace1815",
                "Lovelace1815!",
                "1815-ada.lovelace-1815",
                "Ada Lovelace!",
            ],
        );
        assert_eq!(check("Lovelace1815!", &["bob@example.com", ""]), Ok(()));
        // Three characters are in many passwords.
        assert_eq!(check("ada183920174", ADA), Ok(()));
    }

    #[test]
    fn the_list_is_there_and_in_lower_case() {
        assert!(COMMON.len() > 19_000);
        assert!(COMMON.iter().all(|word| word.to_lowercase() == **word && word.chars().count() >= SHORTEST_WORD));
    }
}
