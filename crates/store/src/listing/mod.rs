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
//! pub async fn list(reader: &mut impl TenantReader, request: &ListRequest) -> Result<Listed<Disk>> {
//!     let tenant = reader.tenant();
//!     LISTING.read(reader, request, "", move || table::table.filter(table::tenant_id.eq(tenant)).into_boxed()).await
//! }
//! ```
//!
//! SQL is made of columns and of text that stands in this program; what a caller says is bound, never spliced in: a
//! [`fragment::Piece`] can hold nothing else. Text compares without case, in ICU's root collation, so that it does in every
//! database; an index on text names that collation, and then serves orders, texts and prefixes. Row-level security
//! lets only leakproof comparisons into an index: those of ids, times, numbers and texts are, ILIKE is not.

mod field;
mod fragment;
mod page;

use std::pin::Pin;

use diesel::expression::Expression;
use diesel::pg::Pg;
use diesel::query_dsl::methods::{FilterDsl, LimitDsl, OrderDsl, SelectDsl};
use diesel::sql_types as sql;
use diesel::{Selectable, SelectableHelper as _};
use diesel_async::AsyncPgConnection;
use diesel_async::methods::LoadQuery;
use serde_json::Value as Json;
use virtualstack_model::filter::{Filter, Operator, Restriction, error_at};
use virtualstack_model::{Error, Result};

use self::field::Value;
pub(crate) use self::field::{Field, Kind};
pub use self::fragment::Fragment;
use self::fragment::{Piece, like};
use crate::digest::DigestKeys;
use crate::listing::page::Page;
use crate::tx::reader::Reader;
use crate::tx::statement::Cost;

/// Fields that a list is ordered by at most, its id not counted.
const MAX_ORDER: usize = 3;

/// How often a filter may look into texts, each row's, as no index does that: a term in each field that is searched, a
/// part of a text, something of a map or list.
const MAX_SCANS: usize = 16;

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
    /// A unique field: the default order, and the last key of every other order. Ids and positions are listed newest first,
    /// texts alphabetically. A caller can name it only if it has a name.
    pub(crate) id: Field<QS>,
    /// What filters and orders may name besides.
    pub(crate) fields: &'static [Field<QS>],
}

type Condition<QS> = Fragment<QS, sql::Bool>;
type Count<QS> = Fragment<QS, sql::BigInt>;

/// SQL that stands in this program. Unlike diesel's own literal it leaves the query one that is kept prepared.
pub(crate) fn literal<QS, ST>(sql: &'static str) -> Fragment<QS, ST> {
    let mut literal = Fragment::new();
    literal.sql(sql);
    literal
}

/// Rows, each with its keys of the order as a JSON array.
type Rows<QS, T> = (diesel::dsl::AsSelect<T, Pg>, Fragment<QS, sql::Jsonb>);

/// A field that a list is ordered by, and whether falling.
type By<'a, QS> = (&'a Field<QS>, bool);

/// What is asked of a list.
struct Question<'l, QS: 'static> {
    page: Page,
    filter: Filter,
    order: Vec<By<'l, QS>>,
    is_default_order: bool,
    show_total: bool,
}

impl<QS> Question<'_, QS> {
    /// Newest first needs no more rows than it shows; anything else may need all there are.
    fn cost(&self) -> Cost {
        let reads_a_page = self.filter.is_empty() && self.is_default_order && !self.show_total;
        if reads_a_page { Cost::Usual } else { Cost::Bounded }
    }
}

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
        &'t self,
        reader: &'t mut impl Reader,
        request: &ListRequest,
        variant: &str,
        base: impl Fn() -> Q + Send + Sync + 't,
    ) -> Pin<Box<dyn Future<Output = Result<Listed<T>>> + Send + 't>>
    where
        T: Selectable<Pg> + Send + 'static,
        Rows<QS, T>: Expression,
        Q: FilterDsl<Condition<QS>, Output = Q> + OrderDsl<Condition<QS>, Output = Q> + LimitDsl<Output = Q>,
        Q: SelectDsl<
                Rows<QS, T>,
                Output: for<'c> LoadQuery<'static, &'c AsyncPgConnection, (T, Json)> + Send + 'static,
            >,
        Q: SelectDsl<Count<QS>, Output: for<'c> LoadQuery<'static, &'c AsyncPgConnection, i64> + Send + 'static>,
    {
        let question = reader.digests().and_then(|keys| self.question(keys, &reader.scope(), request, variant));
        Box::pin(async move {
            let question = question?;
            let cost = question.cost();
            let rows: Vec<(T, Json)> = reader.load(cost, || self.rows::<Q, T>(&question, base())).await?;
            let keys = |(_, keys): &(T, Json)| keys.as_array().cloned().unwrap_or_default();
            let (rows, next_page_token) = question.page.cut(rows, keys)?;
            let total_size = if question.show_total {
                let total: Vec<i64> = reader.load(cost, || self.count(&question, base())).await?;
                total.first().map(|total| i32::try_from(*total).unwrap_or(i32::MAX))
            } else {
                None
            };
            Ok(Listed { rows: rows.into_iter().map(|(row, _)| row).collect(), next_page_token, total_size })
        })
    }

    /// What a request asks, if that can be asked.
    fn question(
        &self,
        keys: DigestKeys,
        scope: &str,
        request: &ListRequest,
        variant: &str,
    ) -> Result<Question<'_, QS>> {
        let ListRequest { page_size, page_token, filter, order_by, show_total } = request;
        let page = Page::read(keys, *page_size, page_token, &[scope, self.collection, variant, filter, order_by])?;
        let question = Question {
            page,
            filter: Filter::parse(filter)?,
            order: self.order(order_by)?,
            is_default_order: order_by.is_empty(),
            show_total: *show_total,
        };
        // What is wrong with it shows when its conditions are made.
        if let Some(keys) = &question.page.after {
            after(&question.order, keys)?;
        }
        self.condition(&question.filter)?;
        Ok(question)
    }

    fn matching<Q: FilterDsl<Condition<QS>, Output = Q>>(&self, filter: &Filter, base: Q) -> Result<Q> {
        if filter.is_empty() { Ok(base) } else { self.condition(filter).map(|condition| base.filter(condition)) }
    }

    /// The query of the page's rows.
    fn rows<Q, T>(&self, question: &Question<'_, QS>, base: Q) -> Result<<Q as SelectDsl<Rows<QS, T>>>::Output>
    where
        T: Selectable<Pg>,
        Rows<QS, T>: Expression,
        Q: FilterDsl<Condition<QS>, Output = Q> + OrderDsl<Condition<QS>, Output = Q> + LimitDsl<Output = Q>,
        Q: SelectDsl<Rows<QS, T>>,
    {
        let Question { page, filter, order, .. } = question;
        let mut rows = self.matching(filter, base)?;
        if let Some(keys) = &page.after {
            rows = rows.filter(after(order, keys)?);
        }
        let (mut by, mut keys) = (Fragment::new(), Fragment::new());
        for (index, (field, falling)) in order.iter().enumerate() {
            by.sql(if index == 0 { "" } else { ", " }).ordered(field).sql(if *falling { " DESC" } else { "" });
            keys.sql(if index == 0 { "jsonb_build_array(" } else { ", " }).column(field);
        }
        keys.sql(")");
        if !question.is_default_order {
            by.pieces.push(Piece::Unprepared);
        }
        Ok(SelectDsl::select(rows.order(by).limit(page.limit()), (T::as_select(), keys)))
    }

    /// The query of the total.
    fn count<Q>(&self, question: &Question<'_, QS>, base: Q) -> Result<<Q as SelectDsl<Count<QS>>>::Output>
    where
        Q: FilterDsl<Condition<QS>, Output = Q> + SelectDsl<Count<QS>>,
    {
        let mut count = Count::new();
        count.sql("count(*)");
        Ok(SelectDsl::select(self.matching(&question.filter, base)?, count))
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
        if sql.scans > MAX_SCANS {
            let what = format!("looks into too many texts: {} times, and {MAX_SCANS} is the most", sql.scans);
            return Err(Error::invalid("filter", what));
        }
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
            (kind, _, operator) => {
                let value = kind.value(&value.text()).map_err(|must| wrong(&format!("{path_name} must be {must}")))?;
                match (kind, operator, value) {
                    (Kind::Path(_), Operator::Has, Value::Text(name)) => sql.at_or_below(field, name),
                    (_, operator, value) => {
                        sql.column(field).sql(match operator {
                            Operator::Equal | Operator::NotEqual | Operator::Has => " = ",
                            Operator::Less => " < ",
                            Operator::LessOrEqual => " <= ",
                            Operator::Greater => " > ",
                            Operator::GreaterOrEqual => " >= ",
                        });
                        sql.bind(value)
                    }
                }
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
        let keys = DigestKeys::new(&[7; 32], None).expect("keys");
        let question = LISTING.question(keys, "tenants/1", request, "").expect("a question");
        let rows = LISTING.rows::<_, Row>(&question, base()).expect("a query");
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
