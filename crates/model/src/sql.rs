//! How ids and states stand in columns. Empty without the `diesel` feature.

/// A newtype over a UUID as a `uuid` column.
macro_rules! uuid_column {
    ($name:ident) => {
        #[cfg(feature = "diesel")]
        const _: () = {
            use diesel::deserialize::{FromSql, Result as FromResult};
            use diesel::pg::{Pg, PgValue};
            use diesel::serialize::{Output, Result as ToResult, ToSql};

            impl ToSql<diesel::sql_types::Uuid, Pg> for $name {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> ToResult {
                    <uuid::Uuid as ToSql<diesel::sql_types::Uuid, Pg>>::to_sql(&self.0, out)
                }
            }

            impl FromSql<diesel::sql_types::Uuid, Pg> for $name {
                fn from_sql(value: PgValue<'_>) -> FromResult<Self> {
                    <uuid::Uuid as FromSql<diesel::sql_types::Uuid, Pg>>::from_sql(value).map(Self)
                }
            }
        };
    };
}

/// An enum whose variants have a stable word each, as JSON, as text, and as a `text` column. In JSON it may have had other
/// words before: `Delete = "DELETE" | "REMOVE"`.
macro_rules! text_enum {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal $(| $old:literal)*,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "diesel", derive(diesel::expression::AsExpression, diesel::deserialize::FromSqlRow))]
        #[cfg_attr(feature = "diesel", diesel(sql_type = diesel::sql_types::Text))]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word $(, alias = $old)*)] $variant,)+
        }

        impl $name {
            /// Every variant.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word of every variant.
            pub const WORDS: &'static [&'static str] = &[$($word,)+];

            /// The stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The variant with this word.
            #[must_use]
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|variant| variant.as_str() == word)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        #[cfg(feature = "diesel")]
        const _: () = {
            use diesel::deserialize::{FromSql, Result as FromResult};
            use diesel::pg::{Pg, PgValue};
            use diesel::serialize::{Output, Result as ToResult, ToSql};

            impl ToSql<diesel::sql_types::Text, Pg> for $name {
                fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> ToResult {
                    <str as ToSql<diesel::sql_types::Text, Pg>>::to_sql(self.as_str(), out)
                }
            }

            impl FromSql<diesel::sql_types::Text, Pg> for $name {
                fn from_sql(value: PgValue<'_>) -> FromResult<Self> {
                    let word = <String as FromSql<diesel::sql_types::Text, Pg>>::from_sql(value)?;
                    Self::from_word(&word).ok_or_else(|| format!("unknown {}: {word:?}", stringify!($name)).into())
                }
            }
        };
    };
}

pub(crate) use {text_enum, uuid_column};
