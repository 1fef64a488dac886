//! SQL that is put together of fields and of text that stands in this program; what a caller says is bound.

use std::marker::PhantomData;

use diesel::expression::{AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types as sql;
use virtualstack_model::filter::Pattern;

use super::field::{Column, DieselColumn, Field, Kind, Value};

/// A piece of SQL: ours, or bound.
pub(super) enum Piece {
    Sql(&'static str),
    Column(&'static DieselColumn),
    Bind(Value),
    /// Makes the query one that is not kept prepared: callers must not fill the connections with statements.
    Unprepared,
}

/// SQL of type `ST` over the columns of `QS`.
pub struct Fragment<QS, ST> {
    pub(super) pieces: Vec<Piece>,
    /// How often it looks into texts without an index.
    pub(super) scans: usize,
    of: PhantomData<fn() -> (QS, ST)>,
}

impl<QS, ST> Fragment<QS, ST> {
    pub(super) const fn new() -> Self {
        Self { pieces: Vec::new(), scans: 0, of: PhantomData }
    }

    pub(super) fn sql(&mut self, text: &'static str) -> &mut Self {
        self.pieces.push(Piece::Sql(text));
        self
    }

    pub(super) fn bind(&mut self, value: Value) -> &mut Self {
        self.pieces.push(Piece::Bind(value));
        self
    }

    pub(super) fn column(&mut self, field: &Field<QS>) -> &mut Self {
        match field.column {
            Column::Diesel(column) => self.pieces.push(Piece::Column(column)),
            Column::Expression(text) => _ = self.sql("(").sql(text).sql(")"),
        }
        self
    }

    /// The column as it is ordered by.
    pub(super) fn ordered(&mut self, field: &Field<QS>) -> &mut Self {
        self.column(field);
        if matches!(field.kind, Kind::Text) { self.sql(COLLATION) } else { self }
    }

    /// The rows that stand behind `key` in an order, and with it if `or_at`.
    pub(super) fn beyond(&mut self, field: &Field<QS>, falling: bool, key: Option<Value>, or_at: bool) -> &mut Self {
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
    pub(super) fn like(&mut self, pattern: String) -> &mut Self {
        self.scans += 1;
        self.sql(COLLATION).sql(" ILIKE ").bind(Value::Text(pattern))
    }

    /// A column that is like `pattern`, without case. No index serves that, so it also says the range that all such texts
    /// are in. In ICU's root collation lower case comes first, and nothing weighs more than U+FFFF; the sign for Kelvin,
    /// which is a K, comes last among those. Other scripts may weigh letters in another order than they are written in,
    /// so this is for what begins in ASCII.
    pub(super) fn matching(&mut self, field: &Field<QS>, pattern: &Pattern) -> &mut Self {
        let scans = self.scans;
        if let Some(beginning) = pattern.parts().first().filter(|part| !part.is_empty() && part.is_ascii()) {
            let first = beginning.to_ascii_lowercase();
            let last = match pattern.parts() {
                [whole] => whole.to_ascii_uppercase().replace('K', "\u{212a}"),
                _ => format!("{first}\u{ffff}"),
            };
            self.ordered(field).sql(" >= ").bind(Value::Text(first)).sql(" AND ");
            self.ordered(field).sql(" <= ").bind(Value::Text(last)).sql(" AND ");
            self.column(field).like(like(pattern));
            self.scans = scans;
            return self;
        }
        self.column(field).like(like(pattern))
    }

    /// A column that holds `name`, or what is below it: between "vms/x" and "vms/x0" lies nothing else, since "0" comes
    /// right behind "/", and a full name that begins with "vms/x" ends there or goes on with a "/".
    pub(super) fn at_or_below(&mut self, field: &Field<QS>, name: String) -> &mut Self {
        let end = format!("{name}0");
        self.column(field)
            .sql(" >= ")
            .bind(Value::Text(name))
            .sql(" AND ")
            .column(field)
            .sql(" < ")
            .bind(Value::Text(end))
    }
}

const COLLATION: &str = " COLLATE \"und-x-icu\"";

/// A pattern as LIKE has it.
pub(super) fn like(pattern: &Pattern) -> String {
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
