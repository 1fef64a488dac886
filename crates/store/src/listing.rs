//! Lists: filter, order, keyset paging and total of every resource, all of it in SQL.
//!
//! A resource says once which fields a caller may name, and gives the query that its list begins with:
//!
//! ```ignore
//! const LISTING: Listing<table::table> = Listing {
//!     collection: "disks",
//!     id: Field::id("name", DiskId::COLLECTION, &table::id),
//!     fields: &[
//!         Field::text("displayName", &table::display_name).sorted().searched(),
//!         Field::words("state", DiskState::WORDS, &table::state),
//!         Field::time("createTime", &table::created_at).sorted(),
//!     ],
//! };
//!
//! pub async fn list<M: Mode>(tx: &mut TenantTx<M>, request: &ListRequest) -> Result<Listed<Disk>> {
//!     let tenant = tx.tenant();
//!     LISTING.read(tx, request, "", || table::table.filter(table::tenant_id.eq(tenant)).into_boxed()).await
//! }
//! ```
//!
//! SQL is made of columns and of text that stands in this program; what a caller says is bound, never spliced in: a
//! [`Piece`] can hold nothing else. Text compares without case, in ICU's root collation, so that it does in every
//! database; an index on text names that collation, and then serves orders, texts and prefixes. Row-level security
//! lets only leakproof comparisons into an index: those of ids, times, numbers and texts are, ILIKE is not.

use std::marker::PhantomData;
use std::pin::Pin;

use chrono::{DateTime, Utc};
use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::query_dsl::methods::{FilterDsl, LimitDsl, OrderDsl, SelectDsl};
use diesel::result::QueryResult;
use diesel::sql_types as sql;
use diesel::{Selectable, SelectableHelper as _};
use diesel_async::methods::LoadQuery;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use serde_json::Value as Json;
use uuid::Uuid;
use virtualstack_model::filter::{Filter, Operator, Pattern, Restriction, error_at};
use virtualstack_model::{Error, Result};

use crate::error::from_diesel;
use crate::page::Page;
use crate::tx::Transaction;

/// Fields that a list is ordered by at most, its id not counted.
const MAX_ORDER: usize = 3;

/// What a caller wants of a list, as the contract has it.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Rows at most; see [`virtualstack_model::page`].
    pub page_size: i32,
    /// Token of the page before, of the same question; empty for the first.
    pub page_token: String,
    /// What rows must be like; see [`virtualstack_model::filter`].
    pub filter: String,
    /// Comma-separated fields, each with "asc" or "desc" behind; empty for newest first.
    pub order_by: String,
    /// Also count all rows that match.
    pub show_total: bool,
}

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// The rows.
    pub rows: Vec<T>,
    /// Token of the next page; empty on the last one.
    pub next_page_token: String,
    /// How many rows match, if that was asked for.
    pub total_size: Option<i32>,
}

/// What can be listed of a query source.
pub(crate) struct Listing<QS: 'static> {
    /// The collection; page tokens are bound to it.
    pub(crate) collection: &'static str,
    /// What is unique: the default order and the end of every other. What rises with time comes newest first, texts as
    /// in a dictionary. Without a name it is no field that a caller may name.
    pub(crate) id: Field<QS>,
    /// What filters and orders may name besides.
    pub(crate) fields: &'static [Field<QS>],
}

/// A field that a caller may name.
pub(crate) struct Field<QS> {
    name: &'static str,
    kind: Kind,
    column: Column,
    nullable: bool,
    sorted: bool,
    searched: bool,
    /// Whether its order is that of the id.
    rises_with_id: bool,
    source: PhantomData<fn() -> QS>,
}

/// How values of a field are written and compare.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Without case, with wildcards; `:` finds it anywhere in the text.
    Text,
    /// One of these.
    Words(&'static [&'static str]),
    /// A stable word, as it is; with wildcards.
    Code,
    /// RFC 3339.
    Time,
    /// Integers.
    Number,
    /// true or false.
    Bool,
    /// A full name of this collection; in SQL a uuid.
    Id(&'static str),
    /// A full name in these collections, each below the one before, with their columns; `:` finds what is below, too.
    Path(&'static [(&'static str, &'static str)]),
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
    const fn operators(self) -> &'static [Operator] {
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
    fn value(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text | Self::Code | Self::Map | Self::List | Self::Path(_) => Some(Value::Text(text.to_owned())),
            Self::Words(words) => words.contains(&text).then(|| Value::Text(text.to_owned())),
            Self::Time => DateTime::parse_from_rfc3339(text).ok().map(|time| Value::Time(time.to_utc())),
            Self::Number => text.parse().ok().map(Value::Number),
            Self::Bool => text.parse().ok().map(Value::Bool),
            Self::Id(collection) => text
                .strip_prefix(collection)
                .and_then(|rest| rest.strip_prefix('/'))
                .and_then(|id| Uuid::try_parse(id).ok())
                .map(Value::Id),
        }
        .ok_or_else(|| match self {
            Self::Words(words) => format!("one of {}", words.join(", ")),
            Self::Time => "a time as in RFC 3339, e.g. 2026-01-02T03:04:05Z".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Id(collection) => format!("a full name, {collection}/{{uuid}}"),
            _ => "a whole number of 64 bits".to_owned(),
        })
    }

    /// Reads a key of a page token, as `jsonb_build_array` wrote it. Callers can make tokens up.
    fn key(self, json: &Json) -> Option<Value> {
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

type DieselColumn = dyn QueryFragment<Pg> + Send + Sync;

/// Where a field's values come from.
#[derive(Clone, Copy)]
enum Column {
    Diesel(&'static DieselColumn),
    Expression(&'static str),
}

/// What is bound.
enum Value {
    Text(String),
    Time(DateTime<Utc>),
    Number(i64),
    Bool(bool),
    Id(Uuid),
}

/// A piece of SQL: ours, or bound.
enum Piece {
    Sql(&'static str),
    Column(&'static DieselColumn),
    Bind(Value),
    /// Makes the query one that is not kept prepared: callers must not fill the connections with statements.
    Unprepared,
}

/// SQL of type `ST` over the columns of `QS`.
pub(crate) struct Fragment<QS, ST> {
    pieces: Vec<Piece>,
    of: PhantomData<fn() -> (QS, ST)>,
}

impl<QS, ST> Fragment<QS, ST> {
    const fn new() -> Self {
        Self { pieces: Vec::new(), of: PhantomData }
    }

    fn sql(&mut self, text: &'static str) -> &mut Self {
        self.pieces.push(Piece::Sql(text));
        self
    }

    fn bind(&mut self, value: Value) -> &mut Self {
        self.pieces.push(Piece::Bind(value));
        self
    }

    fn column(&mut self, field: &Field<QS>) -> &mut Self {
        match field.column {
            Column::Diesel(column) => self.pieces.push(Piece::Column(column)),
            Column::Expression(text) => _ = self.sql("(").sql(text).sql(")"),
        }
        self
    }

    /// The column as it is ordered by.
    fn ordered(&mut self, field: &Field<QS>) -> &mut Self {
        self.column(field);
        if matches!(field.kind, Kind::Text) { self.sql(COLLATION) } else { self }
    }

    /// The rows that stand behind `key` in an order, and with it if `or_at`.
    fn beyond(&mut self, field: &Field<QS>, falling: bool, key: Option<Value>, or_at: bool) -> &mut Self {
        let Some(key) = key else {
            return match (falling, or_at) {
                (true, true) => self.sql("true"),
                (true, false) => self.column(field).sql(" IS NOT NULL"),
                (false, true) => self.column(field).sql(" IS NULL"),
                (false, false) => self.sql("false"),
            };
        };
        self.sql("(").ordered(field);
        self.sql(match (falling, or_at) {
            (true, true) => " <= ",
            (true, false) => " < ",
            (false, true) => " >= ",
            (false, false) => " > ",
        });
        self.bind(key);
        if field.nullable && !falling {
            self.sql(" OR ").column(field).sql(" IS NULL");
        }
        self.sql(")")
    }

    /// What stands before it, as a text that is like `pattern`.
    fn like(&mut self, pattern: String) -> &mut Self {
        self.sql(COLLATION).sql(" ILIKE ").bind(Value::Text(pattern))
    }

    /// A column that is like `pattern`, without case. No index serves that, so it also says the range that all such texts
    /// are in. In ICU's root collation lower case comes first, and nothing weighs more than U+FFFF; the sign for Kelvin,
    /// which is a K, comes last among those. Other scripts may weigh letters in another order than they are written in,
    /// so this is for what begins in ASCII.
    fn matching(&mut self, field: &Field<QS>, pattern: &Pattern) -> &mut Self {
        if let Some(beginning) = pattern.parts().first().filter(|part| !part.is_empty() && part.is_ascii()) {
            let first = beginning.to_ascii_lowercase();
            let last = match pattern.parts() {
                [whole] => whole.to_ascii_uppercase().replace('K', "\u{212a}"),
                _ => format!("{first}\u{ffff}"),
            };
            self.ordered(field).sql(" >= ").bind(Value::Text(first)).sql(" AND ");
            self.ordered(field).sql(" <= ").bind(Value::Text(last)).sql(" AND ");
        }
        self.column(field).like(like(pattern))
    }

    /// Columns that hold the ids of a full name, from the outermost; `:` also finds what is below.
    fn below(&mut self, path: &[(&'static str, &'static str)], ids: &[Uuid], has: bool) -> &mut Self {
        for (index, (_, column)) in path.iter().enumerate() {
            let joint = if index == 0 { "" } else { " AND " };
            match ids.get(index) {
                Some(id) => self.sql(joint).sql(column).sql(" = ").bind(Value::Id(*id)),
                None if has => self,
                None => self.sql(joint).sql(column).sql(" IS NULL"),
            };
        }
        self
    }
}

/// Reads a full name in collections, each below the one before.
fn path_ids(path: &[(&str, &str)], name: &str) -> Result<Vec<Uuid>, String> {
    let segments: Vec<_> = name.split('/').collect();
    let ids = segments.chunks(2).zip(path).map(|(segment, (collection, _))| match segment {
        [name, id] if name == collection => Uuid::try_parse(id).ok(),
        _ => None,
    });
    let ids: Option<Vec<_>> = ids.collect();
    ids.filter(|ids| ids.len() * 2 == segments.len()).ok_or_else(|| {
        let mut names = Vec::<String>::new();
        for (collection, _) in path {
            let below = names.last().map(|name| format!("{name}/")).unwrap_or_default();
            names.push(format!("{below}{collection}/{{uuid}}"));
        }
        format!("a full name, {}", names.join(" or "))
    })
}

const COLLATION: &str = " COLLATE \"und-x-icu\"";

/// A pattern as LIKE has it.
fn like(pattern: &Pattern) -> String {
    let escape = |part: &String| part.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    pattern.parts().iter().map(escape).collect::<Vec<_>>().join("%")
}

impl<QS, ST> QueryFragment<Pg> for Fragment<QS, ST> {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        for piece in &self.pieces {
            match piece {
                Piece::Sql(text) => pass.push_sql(text),
                Piece::Column(column) => column.walk_ast(pass.reborrow())?,
                Piece::Bind(Value::Text(text)) => pass.push_bind_param::<sql::Text, _>(text)?,
                Piece::Bind(Value::Time(time)) => pass.push_bind_param::<sql::Timestamptz, _>(time)?,
                Piece::Bind(Value::Number(number)) => pass.push_bind_param::<sql::BigInt, _>(number)?,
                Piece::Bind(Value::Bool(bool)) => pass.push_bind_param::<sql::Bool, _>(bool)?,
                Piece::Bind(Value::Id(id)) => pass.push_bind_param::<sql::Uuid, _>(id)?,
                Piece::Unprepared => pass.unsafe_to_cache_prepared(),
            }
        }
        Ok(())
    }
}

impl<QS, ST> QueryId for Fragment<QS, ST> {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<QS, ST: sql::SqlType + sql::SingleValue> Expression for Fragment<QS, ST> {
    type SqlType = ST;
}

impl<QS, ST> ValidGrouping<()> for Fragment<QS, ST> {
    type IsAggregate = is_aggregate::No;
}

impl<QS, ST> AppearsOnTable<QS> for Fragment<QS, ST> where Self: Expression {}
impl<QS, ST> SelectableExpression<QS> for Fragment<QS, ST> where Self: Expression {}

type Condition<QS> = Fragment<QS, sql::Bool>;
type Count<QS> = Fragment<QS, sql::BigInt>;
/// Rows, each with its keys of the order as a JSON array.
type Rows<QS, T> = (diesel::dsl::AsSelect<T, Pg>, Fragment<QS, sql::Jsonb>);

/// A field that a list is ordered by, and whether falling.
type By<'a, QS> = (&'a Field<QS>, bool);

impl<QS> Listing<QS> {
    /// Reads a page of what `base` gives, a boxed query without order; `variant` says what else that depends on, since
    /// page tokens are bound to it.
    ///
    /// Boxed, since from outside the compiler does not see that a future over such queries is `Send`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT on `filter`, `orderBy` or `pageToken`.
    pub(crate) fn read<'t, Q, T>(
        &self,
        tx: &'t mut impl Transaction,
        request: &ListRequest,
        variant: &str,
        base: impl Fn() -> Q,
    ) -> Pin<Box<dyn Future<Output = Result<Listed<T>>> + Send + 't>>
    where
        T: Selectable<Pg> + Send + 'static,
        Rows<QS, T>: Expression,
        Q: FilterDsl<Condition<QS>, Output = Q> + OrderDsl<Condition<QS>, Output = Q> + LimitDsl<Output = Q>,
        Q: SelectDsl<Rows<QS, T>, Output: LoadQuery<'static, AsyncPgConnection, (T, Json)> + Send + 'static>,
        Q: SelectDsl<Count<QS>, Output: LoadQuery<'static, AsyncPgConnection, i64> + Send + 'static>,
    {
        let queries = self.queries(&tx.scope(), request, variant, base);
        Box::pin(async move {
            let (page, rows, count) = queries?;
            let rows: Vec<(T, Json)> = rows.load(tx.connection()?).await.map_err(from_diesel)?;
            let (rows, next_page_token) = page.cut(rows, |(_, keys)| keys.as_array().cloned().unwrap_or_default())?;
            let total_size = match count {
                Some(count) => {
                    let total: i64 = count.get_result(tx.connection()?).await.map_err(from_diesel)?;
                    Some(i32::try_from(total).unwrap_or(i32::MAX))
                }
                None => None,
            };
            Ok(Listed { rows: rows.into_iter().map(|(row, _)| row).collect(), next_page_token, total_size })
        })
    }

    /// The page, the query of its rows, and that of the total if it is wanted.
    #[expect(clippy::type_complexity, reason = "it has one caller")]
    fn queries<Q, T>(
        &self,
        scope: &str,
        request: &ListRequest,
        variant: &str,
        base: impl Fn() -> Q,
    ) -> Result<(Page, <Q as SelectDsl<Rows<QS, T>>>::Output, Option<<Q as SelectDsl<Count<QS>>>::Output>)>
    where
        T: Selectable<Pg>,
        Rows<QS, T>: Expression,
        Q: FilterDsl<Condition<QS>, Output = Q> + OrderDsl<Condition<QS>, Output = Q> + LimitDsl<Output = Q>,
        Q: SelectDsl<Rows<QS, T>> + SelectDsl<Count<QS>>,
    {
        let ListRequest { page_size, page_token, filter, order_by, show_total } = request;
        let question = [scope, self.collection, variant, filter, order_by];
        let page = Page::read(*page_size, page_token, &question)?;
        let (filter, order) = (Filter::parse(filter)?, self.order(order_by)?);
        let matching = || match &filter {
            Filter::All(parts) if parts.is_empty() => Ok(base()),
            filter => self.condition(filter).map(|condition| base().filter(condition)),
        };

        let mut rows = matching()?;
        if let Some(keys) = &page.after {
            rows = rows.filter(after(&order, keys)?);
        }
        let (mut by, mut keys) = (Fragment::new(), Fragment::new());
        for (index, (field, falling)) in order.iter().enumerate() {
            by.sql(if index == 0 { "" } else { ", " }).ordered(field).sql(if *falling { " DESC" } else { "" });
            keys.sql(if index == 0 { "jsonb_build_array(" } else { ", " }).column(field);
        }
        keys.sql(")");
        if !order_by.is_empty() {
            by.pieces.push(Piece::Unprepared);
        }
        let rows = SelectDsl::select(rows.order(by).limit(page.limit()), (T::as_select(), keys));
        let count = || {
            let mut count = Count::new();
            count.sql("count(*)");
            matching().map(|rows| SelectDsl::select(rows, count))
        };
        Ok((page, rows, show_total.then(count).transpose()?))
    }

    fn all(&self) -> impl Iterator<Item = &Field<QS>> {
        std::iter::once(&self.id).chain(self.fields)
    }

    fn named(&self, name: &str) -> Option<&Field<QS>> {
        self.all().find(|field| field.name == name && !name.is_empty())
    }

    /// Reads an order; the id ends it, in the direction of what stands before it, so that one index can serve it.
    fn order(&self, text: &str) -> Result<Vec<By<'_, QS>>> {
        let wrong = |what: String| Error::invalid("order_by", what);
        let mut order = Vec::<By<'_, QS>>::new();
        for part in text.split(',').filter(|_| !text.trim().is_empty()) {
            let mut words = part.split_whitespace();
            let name = words.next().unwrap_or_default();
            let falling = match (words.next(), words.next()) {
                (None | Some("asc"), None) => false,
                (Some("desc"), None) => true,
                _ => return Err(wrong(format!("{:?} must be a field, with asc or desc behind", part.trim()))),
            };
            let field = self.named(name).filter(|field| field.sorted).ok_or_else(|| {
                let names: Vec<_> = self.fields.iter().filter(|field| field.sorted).map(|field| field.name).collect();
                wrong(format!("cannot order by {name:?}; fields are {}", names.join(", ")))
            })?;
            if order.iter().any(|(other, _)| other.name == field.name) {
                return Err(wrong(format!("{name} stands twice")));
            }
            order.push((field, falling));
        }
        // What stands behind an id orders nothing.
        let is_id = |field: &Field<QS>| field.rises_with_id || field.name == self.id.name;
        if let Some(index) = order.iter().position(|(field, _)| is_id(field)) {
            let (_, falling) = order[index];
            order.truncate(index);
            order.push((&self.id, falling));
            return Ok(order);
        }
        if order.len() > MAX_ORDER {
            return Err(wrong(format!("must have at most {MAX_ORDER} fields")));
        }
        let falling = order.last().map_or(!matches!(self.id.kind, Kind::Text), |(_, falling)| *falling);
        order.push((&self.id, falling));
        Ok(order)
    }

    fn condition(&self, filter: &Filter) -> Result<Condition<QS>> {
        let mut sql = Fragment::new();
        sql.pieces.push(Piece::Unprepared);
        self.push(filter, &mut sql)?;
        Ok(sql)
    }

    fn push(&self, filter: &Filter, sql: &mut Condition<QS>) -> Result<()> {
        match filter {
            Filter::All(parts) => self.push_joined(parts, "true", " AND ", sql),
            Filter::Any(parts) => self.push_joined(parts, "false", " OR ", sql),
            Filter::Not(part) => {
                // What a null makes unknown is not so.
                sql.sql("(");
                self.push(part, sql)?;
                sql.sql(" IS NOT TRUE)");
                Ok(())
            }
            Filter::Term(term) => {
                sql.sql("(false");
                for field in self.all().filter(|field| field.searched) {
                    sql.sql(" OR ").column(field).like(format!("%{}%", like(term)));
                }
                sql.sql(")");
                Ok(())
            }
            Filter::Restriction(restriction) => self.push_restriction(restriction, sql),
        }
    }

    fn push_joined(
        &self,
        parts: &[Filter],
        none: &'static str,
        joint: &'static str,
        sql: &mut Condition<QS>,
    ) -> Result<()> {
        sql.sql("(").sql(if parts.is_empty() { none } else { "" });
        for (index, part) in parts.iter().enumerate() {
            sql.sql(if index == 0 { "" } else { joint });
            self.push(part, sql)?;
        }
        sql.sql(")");
        Ok(())
    }

    fn push_restriction(&self, restriction: &Restriction, sql: &mut Condition<QS>) -> Result<()> {
        let Restriction { at, field: name, key, operator, value } = restriction;
        let wrong = |what: &str| error_at(*at, what);
        let path_name = key.as_ref().map_or_else(|| name.clone(), |key| format!("{name}.{key}"));
        let (field, key) = match (self.named(&path_name), self.named(name)) {
            (Some(field), _) => (field, None),
            (None, Some(field)) if matches!(field.kind, Kind::Map) => (field, key.clone()),
            _ => {
                let names: Vec<_> = self.fields.iter().map(|field| field.name).collect();
                return Err(wrong(&format!("there is no field {path_name:?}; fields are {}", names.join(", "))));
            }
        };
        // What is behind a key of a map is a text.
        let operators = if key.is_some() { Kind::Text } else { field.kind }.operators();
        if !operators.contains(operator) {
            let operators: Vec<_> = operators.iter().map(|operator| operator.as_str()).collect();
            let what = format!("{path_name} does not take {}, but {}", operator.as_str(), operators.join(" "));
            return Err(wrong(&what));
        }
        sql.sql("((");
        match (field.kind, key, operator) {
            (Kind::Map, Some(key), Operator::Has) if value.is_anything() => {
                sql.column(field).sql(" ? ").bind(Value::Text(key))
            }
            (Kind::Map | Kind::List, None, _) if value.is_anything() => sql.column(field).sql(" <> '{}'"),
            (Kind::Text, _, Operator::Has) if value.is_anything() => sql.column(field).sql(" <> ''"),
            (_, _, Operator::Has) if value.is_anything() => sql.column(field).sql(" IS NOT NULL"),
            (Kind::Map, Some(key), _) => {
                sql.sql("(").column(field).sql(" ->> ").bind(Value::Text(key)).sql(")").like(like(value))
            }
            (Kind::Map, None, _) => sql.column(field).sql(" ? ").bind(Value::Text(value.text())),
            (Kind::List, ..) => {
                sql.sql("EXISTS (SELECT FROM unnest(").column(field).sql(") AS element WHERE element");
                sql.like(like(value)).sql(")")
            }
            (Kind::Text, _, Operator::Has) => sql.column(field).like(format!("%{}%", like(value))),
            (Kind::Text, ..) => sql.matching(field, value),
            (Kind::Code, ..) if value.parts().len() > 1 => {
                sql.column(field).sql(" LIKE ").bind(Value::Text(like(value)))
            }
            (Kind::Path(path), ..) => {
                let ids =
                    path_ids(path, &value.text()).map_err(|must| wrong(&format!("{path_name} must be {must}")))?;
                sql.below(path, &ids, *operator == Operator::Has)
            }
            (kind, _, operator) => {
                let value = kind.value(&value.text()).map_err(|must| wrong(&format!("{path_name} must be {must}")))?;
                sql.column(field).sql(match operator {
                    Operator::Equal | Operator::NotEqual | Operator::Has => " = ",
                    Operator::Less => " < ",
                    Operator::LessOrEqual => " <= ",
                    Operator::Greater => " > ",
                    Operator::GreaterOrEqual => " >= ",
                });
                sql.bind(value)
            }
        };
        sql.sql(if *operator == Operator::NotEqual { ") IS NOT TRUE)" } else { "))" });
        Ok(())
    }
}

/// The rows behind the one with these keys. Nulls are the greatest, as PostgreSQL orders them.
///
/// `a >= 1 AND (a > 1 OR (b >= 2 AND (b > 2 OR …)))`: the outermost comparison lets an index begin at the row.
fn after<QS>(order: &[By<'_, QS>], keys: &[Json]) -> Result<Condition<QS>> {
    let forged = || Error::invalid("page_token", "is not a token of this list");
    if keys.len() != order.len() {
        return Err(forged());
    }
    let mut sql = Fragment::new();
    for (index, ((field, falling), key)) in order.iter().zip(keys).enumerate() {
        let key = || match key {
            Json::Null if field.nullable => Ok(None),
            key => field.kind.key(key).ok_or_else(forged).map(Some),
        };
        if index + 1 < order.len() {
            sql.sql("(").beyond(field, *falling, key()?, true).sql(" AND (");
            sql.beyond(field, *falling, key()?, false).sql(" OR ");
        } else {
            sql.beyond(field, *falling, key()?, false);
        }
    }
    for _ in 1..order.len() {
        sql.sql("))");
    }
    Ok(sql)
}

#[cfg(test)]
mod tests {
    use diesel::dsl::InnerJoinQuerySource;
    use diesel::prelude::*;

    use super::*;
    use crate::schema::{tenants, user_tenant_roles};

    type Joined = InnerJoinQuerySource<tenants::table, user_tenant_roles::table, On>;
    type On = diesel::dsl::Eq<tenants::id, user_tenant_roles::tenant_id>;

    const LISTING: Listing<Joined> = Listing {
        collection: "grants",
        id: Field::id("name", "grants", &user_tenant_roles::role_id),
        fields: &[
            Field::text("tenant", &tenants::slug).sorted().searched(),
            Field::sql("members", Kind::List, "ARRAY['users/' || membership_id]"),
        ],
    };

    #[derive(Selectable)]
    #[diesel(table_name = tenants)]
    #[expect(dead_code, reason = "nothing is loaded")]
    struct Row {
        slug: String,
    }

    fn sql(request: &ListRequest) -> String {
        let base = || {
            let on = tenants::id.eq(user_tenant_roles::tenant_id);
            tenants::table.inner_join(user_tenant_roles::table.on(on)).into_boxed()
        };
        let (_, rows, _) = LISTING.queries::<_, Row>("tenants/1", request, "", base).expect("queries");
        diesel::debug_query::<Pg, _>(&rows).to_string()
    }

    #[test]
    fn joins_and_expressions_are_listed_too() {
        let filter = "members:users/* x'--".to_owned();
        let sql = sql(&ListRequest { filter, order_by: "tenant desc".to_owned(), ..Default::default() });
        for part in [
            r#"EXISTS (SELECT FROM unnest((ARRAY['users/' || membership_id])) AS element WHERE element COLLATE "und-x-icu" ILIKE $1)"#,
            r#""iam"."tenants"."slug" COLLATE "und-x-icu" ILIKE $2"#,
            r#"ORDER BY "iam"."tenants"."slug" COLLATE "und-x-icu" DESC, "iam"."user_tenant_roles"."role_id" DESC"#,
            r#"binds: ["users/%", "%x'--%", 51]"#,
        ] {
            assert!(sql.contains(part), "{part}\n{sql}");
        }
    }
}
