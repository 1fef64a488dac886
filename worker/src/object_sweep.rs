//! Removes objects that no row refers to.
//!
//! - What it does: it lists the store, asks the database for the objects of each page, and deletes the others. They come of
//!   uploads that broke off between an object and its row, and of rows that went before their objects.
//! - What it must never do: remove an object whose row is about to come; so it takes only those that are older than any upload
//!   holds a piece.
//! - When it is activated: by its timer, `worker.sweep_seconds`.

use std::collections::HashSet;

use futures::{StreamExt as _, TryStreamExt as _};
use virtualstack_model::jobs::ObjectSweep;
use virtualstack_model::{Error, Result};
use virtualstack_objects::Key;
use virtualstack_store::SystemTx;
use virtualstack_store::compute::template_uploads;
use virtualstack_store::support::attachments;

use crate::config::Config;
use crate::engine::registry::Registry;
use crate::engine::task::{Next, Task, TaskContext};

/// What our keys begin with: each module's, and those of checks of the storage. What else is there may be somebody else's.
const OURS: [&str; 3] = [TEMPLATES, ATTACHMENTS, "checks/"];

const TEMPLATES: &str = "templates/";
const ATTACHMENTS: &str = "attachments/";

/// Objects that are looked up at once.
const PAGE: usize = 1000;

pub(crate) fn register(registry: &mut Registry, config: &Config) {
    registry.scheduled::<ObjectSweep>(config.sweep());
}

impl Task for ObjectSweep {
    async fn run(&self, context: &TaskContext<'_>) -> Result<Next> {
        let objects = &context.shared.objects;
        let age = context.shared.config.sweep();
        let mut after = None;
        let mut removed = 0;
        let mut prefixes = OURS.into_iter();
        let mut prefix = prefixes.next();
        while let Some(ours) = prefix {
            let page = objects.list(ours, after.as_ref()).take(PAGE).try_collect::<Vec<_>>();
            let page = match context.ask(page).await {
                Ok(page) => page,
                Err(error) => return Ok(Next::Retry { error, after: None }),
            };
            let Some(last) = page.last() else {
                (prefix, after) = (prefixes.next(), None);
                continue;
            };
            after = Some(last.key.clone());
            let old = page.into_iter().filter(|listed| listed.modified + age < context.now());
            let old: Vec<Key> = old.map(|listed| listed.key).collect();
            let orphans = without_row(context, ours, old).await?;
            if orphans.is_empty() {
                continue;
            }
            removed += orphans.len();
            if let Err(error) = context.ask(objects.delete(&orphans)).await {
                return Ok(Next::Retry { error, after: None });
            }
        }
        let cut_off = age.to_std().map_err(Error::internal)?;
        if let Err(error) = context.ask(objects.sweep_temporary(cut_off)).await {
            return Ok(Next::Retry { error, after: None });
        }
        if removed > 0 {
            tracing::info!(removed, "removed objects that nothing refers to");
        }
        Ok(Next::Done)
    }
}

/// Those of these objects that no row knows.
async fn without_row(context: &TaskContext<'_>, ours: &str, keys: Vec<Key>) -> Result<Vec<Key>> {
    let names: Vec<_> = keys.iter().map(Key::to_string).collect();
    let known = async |tx: &mut SystemTx| match ours {
        TEMPLATES => template_uploads::known(tx, &names).await,
        ATTACHMENTS => attachments::known(tx, &names).await,
        _ => Ok(Vec::new()),
    };
    let known = context.store().system(crate::reconciler::reconciler(), known).await?;
    let known: HashSet<_> = known.into_iter().collect();
    Ok(keys.into_iter().filter(|key| !known.contains(key.as_str())).collect())
}
