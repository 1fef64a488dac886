//! What mails and notifications say, in each language there is.

use std::sync::LazyLock;

use chrono::{DateTime, Datelike as _, Utc};
use fluent_bundle::concurrent::FluentBundle;
use fluent_bundle::{FluentArgs, FluentResource, FluentValue};
use unic_langid::LanguageIdentifier;
use virtualstack_model::language::Language;

const SOURCES: [(Language, &str); 2] =
    [(Language::English, include_str!("words/en.ftl")), (Language::German, include_str!("words/de.ftl"))];

static ALL: LazyLock<Vec<Words>> =
    LazyLock::new(|| SOURCES.iter().map(|(language, source)| Words::new(*language, source)).collect());

/// The words of a language.
pub struct Words {
    language: Language,
    bundle: FluentBundle<FluentResource>,
}

impl Words {
    /// Those of a language.
    pub fn of(language: Language) -> &'static Self {
        ALL.iter().find(|words| words.language == language).unwrap_or(&ALL[0])
    }

    fn new(language: Language, source: &str) -> Self {
        let name: LanguageIdentifier = language.as_str().parse().unwrap_or_default();
        let mut bundle = FluentBundle::new_concurrent(vec![name]);
        // What is from elsewhere is quoted, so it needs no marks around it.
        bundle.set_use_isolating(false);
        // A test reads them all: what is wrong in one is not said.
        let resource = FluentResource::try_new(source.to_owned()).unwrap_or_else(|(good, _)| good);
        bundle.add_resource_overriding(resource);
        Self { language, bundle }
    }

    /// Which language it is.
    pub fn language(&self) -> Language {
        self.language
    }

    /// Says something.
    pub fn say<'a>(&self, id: &str, args: &[(&'a str, FluentValue<'a>)]) -> String {
        let Some(pattern) = self.bundle.get_message(id).and_then(|message| message.value()) else {
            return id.to_owned();
        };
        let args: FluentArgs<'_> = args.iter().cloned().collect();
        self.bundle.format_pattern(pattern, Some(&args), &mut Vec::new()).into_owned()
    }

    /// Says a time, to the minute.
    pub fn moment(&self, time: DateTime<Utc>) -> String {
        let month = self.say("month", &[("month", time.month().into())]);
        let (day, year) = (time.day().to_string(), time.year().to_string());
        let clock = time.format("%H:%M").to_string();
        self.say(
            "moment",
            &[("day", day.into()), ("month", month.into()), ("year", year.into()), ("clock", clock.into())],
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What each message says, with its variables in it.
    fn messages(source: &str) -> BTreeMap<String, Vec<String>> {
        let resource = FluentResource::try_new(source.to_owned()).expect("no mistake");
        let mut messages = BTreeMap::new();
        for entry in resource.entries() {
            if let fluent_syntax::ast::Entry::Message(message) = entry {
                let text = format!("{:?}", message.value);
                let names = text.split("VariableReference { id: Identifier { name: \"").skip(1);
                let mut names: Vec<_> = names.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())).collect();
                names.sort();
                assert!(messages.insert(message.id.name.to_owned(), names).is_none(), "{} twice", message.id.name);
            }
        }
        messages
    }

    #[test]
    fn all_languages_say_the_same() {
        let english = messages(SOURCES[0].1);
        assert!(english.len() > 20 && english["moment"].len() == 4, "{english:?}");
        for (language, source) in &SOURCES[1..] {
            assert_eq!(messages(source), english, "{language}");
        }
        for word in Language::WORDS {
            assert!(SOURCES.iter().any(|(language, _)| language.as_str() == *word), "{word} has words");
        }
    }

    #[test]
    fn times_are_said() {
        let time = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        assert_eq!(Words::of(Language::English).moment(time), "15 January 2027, 08:00 UTC");
        assert_eq!(Words::of(Language::German).moment(time), "15. Januar 2027, 08:00 UTC");
    }
}
