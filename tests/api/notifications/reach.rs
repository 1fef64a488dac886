//! A broadcast to 10,000 members of 500 tenants, among many old ones.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use virtualstack_model::notifications::jobs::Notify;
use virtualstack_store::SystemPurpose;
use virtualstack_worker::NoProbe;

use super::broadcasts::{call, get, name};
use crate::support::plans::buffers;
use crate::support::{ControlPlane, Database, Rest, system};

const MEMBERS: i64 = 10_000;
const TENANTS: i64 = 500;
const READERS: usize = 50;

/// Members who count it among what they have not read.
const UNREAD: &str = "SELECT count(*) FROM notifications.told WHERE kind = 'BROADCAST' AND title = 'To everybody' \
    AND read_at IS NULL AND user_id IN (SELECT id FROM iam.memberships WHERE email LIKE 'member-%')";

const MAILS: &str = "SELECT count(*) FROM notifications.mails WHERE notice_id IS NOT NULL AND account_id IN \
    (SELECT id FROM iam.users WHERE email LIKE 'member-%')";

/// Twenty members in each of the tenants, of whom the first is a member of a hundred tenants; and for each of them, and for the
/// provider, as many broadcasts that are over or were taken back, and for each tenant some that are told there.
async fn fill(plane: &ControlPlane) {
    let old = |of: &str, count: i64, active: bool, title: &str, platform: bool| {
        let end = if active { "now() - interval '1 day'" } else { "NULL" };
        format!(
            "INSERT INTO notifications.broadcasts (tenant_id, id, platform, title, body, severity, audience, active, \
                end_time, notice_id, told_at) SELECT t.id, gen_random_uuid(), {platform}, '{title}', 'Over', 'INFO', 'ALL', {active}, {end}, gen_random_uuid(), now() - interval '2 days' \
                FROM iam.tenants t, generate_series(1, {count}) WHERE t.slug LIKE '{of}';"
        )
    };
    let live = old("many-%", 20, true, "To one tenant", false).replace("now() - interval '1 day'", "NULL");
    let made = format!(
        "INSERT INTO iam.tenants (id, slug, display_name) SELECT gen_random_uuid(), 'many-' || i, 'Many ' || i \
            FROM generate_series(1, {TENANTS}) i; \
         INSERT INTO iam.users (id, email, display_name, password_hash) SELECT gen_random_uuid(), 'member-' || i || '@example.com', \
            'Member', (SELECT password_hash FROM iam.users WHERE password_hash IS NOT NULL LIMIT 1) \
            FROM generate_series(1, {MEMBERS}) i; \
         INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) \
            SELECT t.id, gen_random_uuid(), u.id, u.email, u.display_name, 'ACTIVE' FROM generate_series(1, {MEMBERS}) i \
            JOIN iam.tenants t ON t.slug = 'many-' || (1 + i % {TENANTS}) \
            JOIN iam.users u ON u.email = 'member-' || i || '@example.com'; \
         INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) \
            SELECT t.id, gen_random_uuid(), u.id, 'busy@example.com', u.display_name, 'ACTIVE' FROM generate_series(1, 100) i \
            JOIN iam.tenants t ON t.slug = 'many-' || (1 + i) JOIN iam.users u ON u.email = 'member-{TENANTS}@example.com'; \
         {}{}{}{live} ANALYZE notifications.broadcasts; ANALYZE iam.memberships; ANALYZE iam.users; ANALYZE iam.tenants",
        old("provider", MEMBERS / 2, true, "Over", true),
        old("provider", MEMBERS / 2, false, "Taken back", true),
        old("many-1", MEMBERS, true, "Over", false),
    );
    plane.database.execute(&made).await;
}

/// What reading the first page and the count costs a member: statements, and buffers.
async fn cost(plane: &ControlPlane, rest: &Rest) -> (usize, i64) {
    let mut least = (usize::MAX, i64::MAX);
    for _ in 0..3 {
        let since = plane.database.end_of_log().await;
        get(rest, "notifications").await;
        let began = Instant::now();
        loop {
            let reads = |text: &str, _: &Value| text.contains("\"broadcasts\"");
            let plans = plane.database.plans(since, reads).await;
            // A page, and the count.
            if plans.len() >= 2 {
                let all = plane.database.plans(since, |_, _| true).await;
                least = least.min((all.len(), all.iter().map(buffers).sum()));
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "nothing is logged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    least
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_are_told_at_once_and_see_the_last_word() {
    let database = Database::bootstrapped().await;
    database.explain().await;
    let plane = ControlPlane::on(database).await;
    fill(&plane).await;
    let staff = [plane.operator().await.rest(), plane.operator().await.rest()];
    let draft = json!({"title": "To everybody", "body": "The storage is slow.", "audience": {"all": true}, "channels": ["EMAIL"]});
    let draft = call(&staff[0], "POST", "broadcasts", draft).await;
    let mut readers = Vec::new();
    for number in 1..=READERS {
        let tenant = format!("many-{}", 1 + number);
        readers.push(plane.login(&format!("member-{number}@example.com"), &tenant).await.rest());
    }
    // One of a tenant with 10,000 old broadcasts of its own, and one of many tenants.
    readers.push(plane.login(&format!("member-{TENANTS}@example.com"), "many-1").await.rest());
    readers.push(plane.login(&format!("member-{TENANTS}@example.com"), "many-7").await.rest());
    let unread = async |rest: &Rest| get(rest, "notifications").await["unreadCount"].as_i64().expect("a count");
    // Each tenant's own.
    assert_eq!(unread(&readers[0]).await, 20);

    let began = Instant::now();
    call(&staff[0], "POST", &format!("{}:activate", name(&draft)), json!({})).await;
    assert_eq!(plane.database.count(UNREAD).await, MEMBERS);
    println!("told to {MEMBERS} of {TENANTS} tenants, counted by SQL: {:?} after the call", began.elapsed());
    for reader in &readers {
        assert_eq!(unread(reader).await, 21);
    }
    for (who, reader) in
        [("a member", 0), ("one with 10,000 old ones of the tenant", READERS), ("one of 101 tenants", READERS + 1)]
    {
        let (statements, buffers) = cost(&plane, &readers[reader]).await;
        println!("{who}: {statements} statements, {buffers} buffers to read a page and the count");
        // A wrong plan would read all that is old, or is told to others: 10,000 rows and more.
        assert!(buffers < 1_000, "{who}: {buffers}");
    }
    let reach = get(&staff[0], name(&draft)).await["reach"].clone();
    let all = "SELECT count(*) FROM iam.memberships WHERE state = 'ACTIVE'";
    assert_eq!(reach["addressed"], plane.database.count(all).await);

    // Mails: one an account, however many tenants it is in, and however often it is begun.
    let began = Instant::now();
    let worker = plane.work(std::sync::Arc::new(NoProbe)).await;
    while plane.database.count(MAILS).await < MEMBERS {
        let run = plane.store.system(system(SystemPurpose::Reconcile), async |tx| tx.activate::<Notify>().await);
        run.await.expect("activated");
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(began.elapsed() < Duration::from_secs(120), "{} mails", plane.database.count(MAILS).await);
    }
    println!("{MEMBERS} mails are queued {:?} after a worker began", began.elapsed());
    worker.drain().await;
    assert_eq!(plane.database.count(MAILS).await, MEMBERS);
    let twice = "SELECT count(*) FROM (SELECT FROM notifications.mails WHERE notice_id IS NOT NULL GROUP BY account_id HAVING count(*) > 1) d";
    assert_eq!(plane.database.count(twice).await, 0);

    // Two operators who do not know of each other.
    for round in 0..10_u64 {
        let race = staff.iter().zip([":activate", ":deactivate"]).enumerate().map(|(who, (rest, verb))| {
            let path = format!("/v1/{}{verb}", name(&draft));
            async move {
                let pause = (round * 7 + u64::try_from(who).expect("small") * 13) % 11;
                tokio::time::sleep(Duration::from_millis(pause)).await;
                rest.call("POST", &path, Some(json!({}))).await.0
            }
        });
        let statuses = futures::future::join_all(race).await;
        assert!(statuses.iter().all(|status| [200, 400].contains(status)) && statuses.contains(&200), "{statuses:?}");
        let active = get(&staff[0], name(&draft)).await["active"] == true;
        let expected = if active { MEMBERS } else { 0 };
        assert_eq!(plane.database.count(UNREAD).await, expected, "round {round}");
        for reader in &readers[..5] {
            assert_eq!(unread(reader).await, if active { 21 } else { 20 }, "round {round}");
        }
    }
    let active = get(&staff[0], name(&draft)).await["active"] == true;
    for reader in &readers {
        assert_eq!(unread(reader).await, if active { 21 } else { 20 });
    }
}
