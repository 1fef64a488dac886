//! The database's clock, by which jobs are due, leases end and deadlines pass. That of a worker's machine decides nothing.

use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::pg::{Pg, PgValue};
use diesel::sql_types::Timestamptz;

/// What the database's clock said, and how long ago that was by a clock that nobody sets.
#[derive(Clone, Copy, Debug, FromSqlRow)]
pub struct Clock {
    said: DateTime<Utc>,
    heard: Instant,
}

impl Clock {
    /// A clock that says this now.
    #[must_use]
    pub fn saying(said: DateTime<Utc>) -> Self {
        Self { said, heard: Instant::now() }
    }

    /// What the database's clock says now.
    #[must_use]
    pub fn now(&self) -> DateTime<Utc> {
        self.said + TimeDelta::from_std(self.heard.elapsed()).unwrap_or(TimeDelta::MAX)
    }

    /// How far the clock of this machine is ahead.
    pub(crate) fn skew(&self) -> TimeDelta {
        Utc::now() - self.now()
    }
}

impl FromSql<Timestamptz, Pg> for Clock {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        FromSql::<Timestamptz, Pg>::from_sql(value).map(Self::saying)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_by_itself_whatever_the_machine_thinks() {
        let said = Utc::now() - TimeDelta::days(400);
        let clock = Clock::saying(said);
        assert!(clock.now() >= said && clock.now() < said + TimeDelta::days(1), "{clock:?}");
        assert_eq!(clock.skew().num_days(), 400);
    }
}
