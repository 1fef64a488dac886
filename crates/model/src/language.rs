//! Languages that people are written to in.

use crate::sql::text_enum;

text_enum! {
    /// A language, by its tag (BCP 47).
    #[derive(Default)]
    Language {
        #[default]
        English = "en",
        German = "de",
    }
}
