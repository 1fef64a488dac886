//! Fields of a resource that filters and orders may name, and how their values are read.

use std::marker::PhantomData;

use chrono::{DateTime, Utc};
use diesel::expression::AppearsOnTable;
use diesel::pg::Pg;
use diesel::query_builder::QueryFragment;
use diesel::sql_types as sql;
use serde_json::Value as Json;
use uuid::Uuid;
use virtualstack_model::filter::Operator;
use virtualstack_model::id::full_name;

/// A field that a caller may name.
pub(crate) struct Field<QS> {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) column: Column,
    pub(super) nullable: bool,
    pub(super) sorted: bool,
    pub(super) searched: bool,
    /// Whether its order is that of the id.
    pub(super) rises_with_id: bool,
    source: PhantomData<fn() -> QS>,
}

/// How values of a field are written and compare.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Without case, with wildcards; `:` finds it anywhere in the text.
    Text,
    Words(&'static [&'static str]),
    /// A stable word, as it is; with wildcards.
    Code,
    Time,
    Number,
    Bool,
    /// A full name of this collection; in SQL a uuid.
    Id(&'static str),
    /// A full name like one of these, e.g. "vms/{uuid}", in a column that compares by bytes; `:` finds what is below, too.
    Path(&'static [&'static str]),
    /// A jsonb object of texts: `labels.env = "prod"`, `labels:env`.
    Map,
    /// An array of texts: `:` finds an element.
    List,
}

/// A column of type `T`, maybe null.
pub(crate) trait Of<T> {
    const NULLABLE: bool;
}

impl<T: sql::SqlType<IsNull = sql::is_nullable::NotNull>> Of<T> for T {
    const NULLABLE: bool = false;
}

impl<T: sql::SqlType<IsNull = sql::is_nullable::NotNull>> Of<T> for sql::Nullable<T> {
    const NULLABLE: bool = true;
}

/// Makes a constructor per type of column.
macro_rules! of_columns {
    ($($(#[$doc:meta])* $name:ident($($argument:ident: $of:ty)?): $sql_type:ty => $kind:expr;)+) => {
        $($(#[$doc])*
        pub(crate) const fn $name<C>(name: &'static str, $($argument: $of,)? column: &'static C) -> Self
        where
            C: AppearsOnTable<QS> + QueryFragment<Pg> + Send + Sync,
            C::SqlType: Of<$sql_type>,
        {
            Self::new(name, $kind, Column::Diesel(column), <C::SqlType as Of<$sql_type>>::NULLABLE)
        })+
    };
}

impl<QS> Field<QS> {
    of_columns! {
        text(): sql::Text => Kind::Text;
        words(words: &'static [&'static str]): sql::Text => Kind::Words(words);
        code(): sql::Text => Kind::Code;
        time(): sql::Timestamptz => Kind::Time;
        int32(): sql::Integer => Kind::Number;
        int64(): sql::BigInt => Kind::Number;
        bool(): sql::Bool => Kind::Bool;
        id(collection: &'static str): sql::Uuid => Kind::Id(collection);
        path(patterns: &'static [&'static str]): sql::Text => Kind::Path(patterns);
        map(): sql::Jsonb => Kind::Map;
        list(): sql::Array<sql::Text> => Kind::List;
    }

    /// What no column holds, as an SQL expression over the source's columns.
    pub(crate) const fn sql(name: &'static str, kind: Kind, expression: &'static str) -> Self {
        Self::new(name, kind, Column::Expression(expression), true)
    }

    /// Lists can be ordered by it.
    pub(crate) const fn sorted(mut self) -> Self {
        assert!(!matches!(self.kind, Kind::Map | Kind::List | Kind::Path(_)), "has no order");
        self.sorted = true;
        self
    }

    /// Lists can be ordered by it, and the id says how: what was later has the greater one.
    pub(crate) const fn sorted_by_id(mut self) -> Self {
        self.rises_with_id = true;
        self.sorted()
    }

    /// Terms of a filter look in it.
    pub(crate) const fn searched(mut self) -> Self {
        assert!(matches!(self.kind, Kind::Text), "is no text");
        self.searched = true;
        self
    }

    const fn new(name: &'static str, kind: Kind, column: Column, nullable: bool) -> Self {
        Self { name, kind, column, nullable, sorted: false, searched: false, rises_with_id: false, source: PhantomData }
    }
}

impl Kind {
    /// What it compares with; `:` with a lone `*` asks of every kind whether there is anything.
    pub(super) const fn operators(self) -> &'static [Operator] {
        use Operator::{Equal, Greater, GreaterOrEqual, Has, Less, LessOrEqual, NotEqual};
        match self {
            Self::Text | Self::Words(_) | Self::Code | Self::Bool | Self::Id(_) | Self::Path(_) => {
                &[Equal, NotEqual, Has]
            }
            Self::Time | Self::Number => &[Equal, NotEqual, Less, LessOrEqual, Greater, GreaterOrEqual, Has],
            Self::Map | Self::List => &[Has],
        }
    }

    /// Reads a value, or says what it must be.
    pub(super) fn value(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text | Self::Code | Self::Map | Self::List => Some(Value::Text(text.to_owned())),
            Self::Words(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::Time => DateTime::parse_from_rfc3339(text).ok().map(|time| Value::Time(time.to_utc())),
            Self::Number => text.parse().ok().map(Value::Number),
            Self::Bool => text.parse().ok().map(Value::Bool),
            Self::Id(collection) => text
                .strip_prefix(collection)
                .and_then(|rest| rest.strip_prefix('/'))
                .and_then(|id| Uuid::try_parse(id).ok())
                .map(Value::Id),
            Self::Path(patterns) => full_name(patterns, text).map(Value::Text),
        }
        .ok_or_else(|| match self {
            Self::Words(words) => format!("one of {}", words.join(", ")),
            Self::Time => "a time as in RFC 3339, e.g. 2026-01-02T03:04:05Z".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Id(collection) => format!("a full name, {collection}/{{uuid}}"),
            Self::Path(patterns) => format!("a full name, {}", patterns.join(" or ")),
            _ => "a whole number of 64 bits".to_owned(),
        })
    }

    /// Reads a key of a page token, as `jsonb_build_array` wrote it. Callers can make tokens up.
    pub(super) fn key(self, json: &Json) -> Option<Value> {
        match (self, json) {
            (Self::Id(_), Json::String(id)) => Uuid::try_parse(id).ok().map(Value::Id),
            (_, Json::String(text)) if text.contains('\0') => None,
            (Self::Text | Self::Words(_) | Self::Code, Json::String(text)) => Some(Value::Text(text.clone())),
            (Self::Time, Json::String(text)) => self.value(text).ok(),
            (Self::Number, Json::Number(number)) => number.as_i64().map(Value::Number),
            (Self::Bool, Json::Bool(bool)) => Some(Value::Bool(*bool)),
            _ => None,
        }
    }
}

pub(super) type DieselColumn = dyn QueryFragment<Pg> + Send + Sync;

/// Where a field's values come from.
#[derive(Clone, Copy)]
pub(super) enum Column {
    Diesel(&'static DieselColumn),
    Expression(&'static str),
}

/// What is bound.
pub(super) enum Value {
    Text(String),
    Time(DateTime<Utc>),
    Number(i64),
    Bool(bool),
    Id(Uuid),
}
