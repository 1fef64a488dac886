//! Statements that can be sent together, in one round trip. They all have to be prepared ones: preparing takes turns, and what
//! is not prepared would overtake them.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::sql_types::{BigInt, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::methods::LoadQuery;
use diesel_async::{AsyncPgConnection, RunQueryDsl as _};
use uuid::Uuid;
use virtualstack_model::Result;

use crate::tx::error::from_diesel;

/// Loads the rows of a query.
pub(crate) async fn rows<T, Q>(query: Q, mut connection: &AsyncPgConnection) -> Result<Vec<T>>
where
    T: Send,
    Q: for<'c> LoadQuery<'static, &'c AsyncPgConnection, T> + Send + 'static,
{
    query.load(&mut connection).await.map_err(from_diesel)
}

/// What a query may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cost {
    /// As much as any other statement.
    Usual,
    /// Less, since no index may serve it: what one caller made up must not keep a connection for long.
    Bounded,
}

/// How long a query may take whose cost is bounded.
const BOUNDED: Statement = Statement::plain("SET LOCAL statement_timeout = 3000");

impl Cost {
    pub(crate) async fn send(self, connection: &AsyncPgConnection) -> Result<()> {
        match self {
            Self::Usual => Ok(()),
            Self::Bounded => BOUNDED.send(connection).await,
        }
    }
}

/// A statement without a result. With binds its text ends in an open bracket, which they follow.
pub(crate) struct Statement {
    pub(crate) sql: &'static str,
    pub(crate) binds: Vec<Bind>,
}

pub(crate) enum Bind {
    Text(&'static str),
    Uuid(Uuid),
    MaybeUuid(Option<Uuid>),
    Integer(i32),
    BigInt(i64),
}

impl Statement {
    pub(crate) const fn plain(sql: &'static str) -> Self {
        Self { sql, binds: Vec::new() }
    }

    pub(crate) async fn send(&self, mut connection: &AsyncPgConnection) -> Result<()> {
        self.execute(&mut connection).await.map_err(from_diesel).map(|_| ())
    }
}

impl QueryId for &Statement {
    type QueryId = ();
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl QueryFragment<Pg> for &Statement {
    fn walk_ast<'b>(&'b self, mut pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        pass.push_sql(self.sql);
        for (index, bind) in self.binds.iter().enumerate() {
            pass.push_sql(if index == 0 { "" } else { ", " });
            match bind {
                Bind::Text(text) => pass.push_bind_param::<Text, _>(*text)?,
                Bind::Uuid(uuid) => pass.push_bind_param::<SqlUuid, _>(uuid)?,
                Bind::MaybeUuid(uuid) => pass.push_bind_param::<Nullable<SqlUuid>, _>(uuid)?,
                Bind::Integer(number) => pass.push_bind_param::<Integer, _>(number)?,
                Bind::BigInt(number) => pass.push_bind_param::<BigInt, _>(number)?,
            }
        }
        if self.sql.contains('(') {
            pass.push_sql(")");
        }
        Ok(())
    }
}
