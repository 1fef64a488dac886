//! What is outside and not as the settings say: a database, a vCenter. It is told what, and what to do.

use std::time::Duration;

use serde_json::Value;

use super::{Role, virtualstack};
use crate::adapters::vcsim::Vcsim;
use crate::support::{Database, Rest};

/// What a server says that cannot work on its database, and its exit code.
async fn said(database: &Database, url: &str) -> (Option<i32>, String) {
    let settings = [("VIRTUALSTACK_DATABASE_URL", url), ("VIRTUALSTACK_SERVER_LISTEN", "127.0.0.1:0")];
    let output = virtualstack(&["server"], database, &settings).output();
    let output = tokio::time::timeout(Duration::from_secs(60), output).await.expect("it ends").expect("a process");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_worked_with_is_told_why() {
    let database = Database::empty().await;
    let url = database.config.url.clone();
    let name = url.split("dbname=").nth(1).expect("a name").to_owned();
    database.execute("CREATE ROLE stranger_to_all LOGIN").await;
    for (url, code, told) in [
        (
            "postgres//virtualstack@db".to_owned(),
            64,
            ["VIRTUALSTACK_DATABASE_URL (database.url): must be like postgres://", ""],
        ),
        ("postgres://ada@127.0.0.1:1/shop".to_owned(), 1, ["not reachable at 127.0.0.1:1: ", "refused"]),
        (url.replace(&name, "no_such_database"), 1, ["there is no database no_such_database", "CREATE DATABASE"]),
        (url.clone(), 1, ["schema", "run: virtualstack migrate"]),
        (url.replace("user=virtualstack_login", "user=stranger_to_all"), 1, ["lacks a right", "--print-roles"]),
    ] {
        let (ended, said) = said(&database, &url).await;
        assert_eq!(ended, Some(code), "{url}: {said}");
        for part in told {
            assert!(said.contains(part), "{url}: {said}");
        }
        assert_eq!(said.contains("not reachable"), told[0].starts_with("not reachable"), "{url}: {said}");
    }
    // An older one: a migration is missing.
    let database = Database::new().await;
    let forget =
        "DELETE FROM __diesel_schema_migrations WHERE version = (SELECT max(version) FROM __diesel_schema_migrations)";
    database.execute(forget).await;
    let (ended, said) = said(&database, &database.config.url).await;
    assert_eq!(ended, Some(1), "{said}");
    assert!(said.contains("1 migrations are missing") && said.contains("run: virtualstack migrate"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn readyz_says_why_the_database_lets_nobody_in() {
    let database = Database::new().await;
    let mut server = Role::start("server", &database, &[("VIRTUALSTACK_SERVER_LISTEN", "127.0.0.1:0")]);
    let ops = Rest::new(&format!("http://{}", server.address("serving health and metrics").await), None);
    assert_eq!(ops.call("GET", "/readyz", None).await.0, 200);
    let closed = "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 0', current_database()); END $$";
    // First this, in a transaction of its own: or whoever is cut off comes back before it holds.
    database.execute(closed).await;
    let cut = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
        WHERE datname = current_database() AND pid <> pg_backend_pid()";
    database.execute(cut).await;
    let (status, body) = ops.call("GET", "/readyz", None).await;
    let reason = body["reason"].as_str().expect("a reason");
    assert!(status == 503 && reason.contains("has no connection left"), "{body}");
    assert!(!reason.contains("not reachable"), "somebody answers: {reason}");
    drop(server);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_fit_the_vcenter_are_told_at_the_start_and_by_readyz() {
    let Some(vcsim) = Vcsim::start(&["-plain"]).await else { return };
    let database = Database::new().await;
    let config = vcsim.config();
    let password = config.password.expect("a password").0;
    let base = [
        ("VIRTUALSTACK_HYPERVISOR_KIND", "vcenter"),
        ("VIRTUALSTACK_VCENTER_URL", config.url.as_str()),
        ("VIRTUALSTACK_VCENTER_USERNAME", config.username.as_str()),
        ("VIRTUALSTACK_VCENTER_PASSWORD", password.as_str()),
    ];
    for (setting, given, fits) in [
        ("TEMPLATE_FOLDER", "/DC0/vm/templates", None),
        ("TEMPLATE_FOLDER", "/DC0/vm/nowhere", Some("there is: templates, virtualstack")),
        ("RESOURCE_POOL", "DC0_C9", Some("DC0_C0")),
        ("DATACENTER", "DC9", Some("there is: DC0")),
    ] {
        let variable = format!("VIRTUALSTACK_VCENTER_{setting}");
        let settings = [base.as_slice(), &[(variable.as_str(), given)]].concat();
        let mut worker = Role::start("worker", &database, &settings);
        if fits.is_some() {
            let told = worker.line("do not fit the vCenter").await;
            assert_eq!(told["level"], "ERROR", "{told}");
            assert!(told["message"].as_str().is_some_and(|told| told.contains(given)), "{told}");
        }
        let ops = Rest::new(&format!("http://{}", worker.address("serving health and metrics").await), None);
        let (status, body) = ops.call("GET", "/readyz", None).await;
        match fits {
            None => assert_eq!((status, &body["status"]), (200, &Value::from("ok")), "{given}: {body}"),
            Some(there_is) => {
                assert_eq!(status, 503, "{given}: {body}");
                let reason = body["reason"].as_str().expect("a reason");
                let key = format!("vcenter.{} {given:?}: ", setting.to_lowercase());
                assert!(reason.starts_with(&key) && reason.contains(there_is), "{reason}");
            }
        }
        assert_eq!(worker.terminate().await, Some(0));
    }
}
