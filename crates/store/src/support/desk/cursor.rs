//! How far a desk was read.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Timestamptz};
use diesel_async::RunQueryDsl;
use virtualstack_model::Result;
use virtualstack_model::support::jobs::DeskSync;

use crate::schema::desk_cursors as cursors;
use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// How far a desk was read.
#[derive(Clone, Copy, Debug, Queryable, Selectable)]
#[diesel(table_name = cursors)]
pub struct Cursor {
    /// By the desk's clock.
    pub read_until: DateTime<Utc>,
    pub polled_at: DateTime<Utc>,
    /// Whether more was there to read.
    pub cut: bool,
    /// When the desk last said that something has changed there.
    pub asked_at: Option<DateTime<Utc>>,
}

/// How far a desk was read, if it was.
pub async fn cursor(tx: &mut SystemTx, desk: &str) -> Result<Option<Cursor>> {
    let row = cursors::table.find(desk).select(Cursor::as_select());
    row.first(tx.connection()?).await.optional().map_err(from_diesel)
}

/// Remembers how far a desk was read, and when.
pub async fn set_cursor(tx: &mut SystemTx, desk: &str, cursor: Cursor) -> Result<()> {
    let Cursor { read_until, polled_at, cut, asked_at: _ } = cursor;
    let now = (cursors::read_until.eq(read_until), cursors::polled_at.eq(polled_at), cursors::cut.eq(cut));
    diesel::insert_into(cursors::table)
        .values((cursors::desk.eq(desk), now))
        .on_conflict(cursors::desk)
        .do_update()
        .set(now)
        .execute(tx.connection()?)
        .await
        .map_err(from_diesel)
        .map(|_| ())
}

/// Has the desk read before its time. Where that is asked for already, nothing is written.
pub async fn ask(tx: &mut SystemTx) -> Result<()> {
    let open = cursors::asked_at.is_null().or(cursors::asked_at.le(cursors::polled_at.nullable()));
    let asked =
        diesel::update(cursors::table.filter(open)).set(cursors::asked_at.eq(sql::<Nullable<Timestamptz>>("now()")));
    if asked.execute(tx.connection()?).await.map_err(from_diesel)? > 0 {
        tx.activate::<DeskSync>().await?;
    }
    Ok(())
}

/// Remembers when a desk was last asked, whatever it said: where it fails, it is not asked more often for that.
pub async fn polled(tx: &mut SystemTx, desk: &str, at: DateTime<Utc>) -> Result<()> {
    let row = cursors::table.find(desk);
    diesel::update(row).set(cursors::polled_at.eq(at)).execute(tx.connection()?).await.map_err(from_diesel).map(|_| ())
}
