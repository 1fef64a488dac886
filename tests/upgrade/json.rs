//! JSON that releases have left in rows: today's types read it as it was written. A renamed field needs
//! `#[serde(alias)]`, a new one a default.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use virtualstack_model::compute::jobs::{VmConsole, VmCreate, VmDelete, VmPower, VmResize, VmSnapshot};
use virtualstack_model::iam::jobs::{InvitationMail, PasswordResetMail};
use virtualstack_model::jobs::{Job, RETIRED_QUEUES};
use virtualstack_store::compute::snapshots::Snapshot;
use virtualstack_store::compute::vms::Vm;
use virtualstack_store::operations::Operation;

use super::Release;

type Read = fn(&Value) -> serde_json::Result<()>;

fn read<T: DeserializeOwned>(json: &Value) -> serde_json::Result<()> {
    T::deserialize(json).map(drop)
}

fn job<J: Job>() -> (&'static str, Read) {
    (J::KIND, read::<J>)
}

/// What the change log keeps of a resource after each change, by the collection that it is in.
const CHANGES: &[(&str, Read)] = &[("vms", read::<Vm>), ("operations", read::<Operation>)];

/// What a row has kept as JSON.
#[derive(Deserialize)]
struct Kept {
    of: String,
    json: Value,
}

fn readable(release: &Release, kept: &[Kept], readers: &[(&str, Read)]) {
    assert!(!kept.is_empty(), "{} has nothing to read", release.name);
    for Kept { of, json } in kept {
        let (_, read) = readers.iter().find(|(name, _)| name == of).unwrap_or_else(|| panic!("nothing reads {of}"));
        read(json).unwrap_or_else(|error| panic!("{}: {of}: {error}: {json}", release.name));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn today_reads_what_each_release_has_kept_as_json() {
    let jobs = [
        job::<VmCreate>(),
        job::<VmPower>(),
        job::<VmResize>(),
        job::<VmSnapshot>(),
        job::<VmConsole>(),
        job::<VmDelete>(),
        job::<InvitationMail>(),
        job::<PasswordResetMail>(),
    ];
    for release in Release::all() {
        // As it was written: migrations change columns, and let JSON stand.
        let (database, _) = release.restored().await;
        let changes =
            "SELECT split_part(resource, '/', 1) AS of, after AS json FROM audit.changes WHERE after IS NOT NULL";
        readable(&release, &database.rows(changes).await, CHANGES);
        // Nobody reads jobs of retired queues: they take no input.
        let retired = RETIRED_QUEUES.join("', '");
        let payloads =
            format!("SELECT kind AS of, payload AS json FROM background_jobs.jobs WHERE queue NOT IN ('{retired}')");
        readable(&release, &database.rows(&payloads).await, &jobs);

        let tombstones = "SELECT resource AS of, after -> 'tombstone' AS json FROM audit.changes \
            WHERE jsonb_typeof(after -> 'tombstone') = 'object'";
        let tombstones: Vec<Kept> = database.rows(tombstones).await;
        assert!(!tombstones.is_empty(), "{}: nothing has ceased to be", release.name);
        for Kept { of, json } in tombstones {
            assert!(read::<Vm>(&json).or_else(|_| read::<Snapshot>(&json)).is_ok(), "{}: {of}: {json}", release.name);
        }
    }
}
