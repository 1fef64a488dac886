//! How transactions end.

use diesel_async::AsyncPgConnection;
use virtualstack_model::Result;

use crate::tx::statement::Statement;

/// How a transaction ends that worked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    #[default]
    Commit,
    /// By a rollback: everything is done, every check with it, and nothing of it is kept.
    DryRun,
}

impl Ending {
    /// For a request that may be only to be validated.
    #[must_use]
    pub fn of(validate_only: bool) -> Self {
        if validate_only { Self::DryRun } else { Self::Commit }
    }
}

impl Ending {
    /// Ends a transaction.
    pub(crate) async fn send(self, connection: &AsyncPgConnection) -> Result<()> {
        match self {
            Self::Commit => Statement::plain("COMMIT").send(connection).await,
            // A dry run meets the checks that wait for the commit, too.
            Self::DryRun => {
                let (checks, rollback) =
                    (Statement::plain("SET CONSTRAINTS ALL IMMEDIATE"), Statement::plain("ROLLBACK"));
                let (checked, ended) = futures::join!(checks.send(connection), rollback.send(connection));
                checked.and(ended)
            }
        }
    }
}
