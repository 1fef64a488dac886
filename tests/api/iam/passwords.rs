//! Passwords that were forgotten.

use std::sync::Arc;

use serde_json::{Value, json};
use virtualstack_store::SystemPurpose;
use virtualstack_store::iam::password_resets;
use virtualstack_worker::{NoProbe, Point};

use crate::api::{Reply, refused, rows_with, token_of};
use crate::support::{ControlPlane, Crash, CrashProbe, PASSWORD, Rest, Session, system};

const PERSON: &str = "admin@acme.example.com";
const NEW: &str = "battery staple correct";

async fn ask(plane: &ControlPlane, email: &str) -> Reply {
    let body = json!({"email": email});
    Rest::new(&plane.http, None).call("POST", "/v1/auth:requestPasswordReset", Some(body)).await
}

async fn reset(plane: &ControlPlane, token: &str, password: &str) -> Reply {
    let body = json!({"token": token, "password": password});
    Rest::new(&plane.http, None).call("POST", "/v1/auth:resetPassword", Some(body)).await
}

async fn login(plane: &ControlPlane, password: &str) -> Result<Session, String> {
    Session::login(plane, PERSON, password, "acme").await.map_err(|status| crate::support::reason(&status))
}

async fn asked(plane: &ControlPlane) -> String {
    assert_eq!(ask(plane, PERSON).await, (200, json!({})));
    token_of(&plane.next_mail_to(PERSON).await)
}

fn invalid(reply: &Reply) {
    refused(reply, 400, "FAILED_PRECONDITION", "RESET_TOKEN_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_ends_the_old_password_and_all_sessions() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let other = login(&plane, PASSWORD).await.expect("a second session");
    let token = asked(&plane).await;
    assert!(token.starts_with("vsp_"));
    for (weak, about) in [("short", "too short"), ("password1234", "common"), ("admin@acme.example.com", "the address")]
    {
        let fields = refused(&reset(&plane, &token, weak).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        assert_eq!(fields, ["password"], "{about}");
    }
    let alive = async |session: &Session| session.rest().call("GET", "/v1/sessions/current", None).await;
    assert_eq!(alive(&acme).await.0, 200, "asking ends nothing");
    assert_eq!(reset(&plane, &token, NEW).await, (200, json!({})));
    for session in [&acme, &other] {
        refused(&alive(session).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
        let body = json!({"refreshToken": session.tokens.refresh_token});
        let refresh = session.rest().call("POST", "/v1/auth:refresh", Some(body)).await;
        refused(&refresh, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    }
    assert_eq!(login(&plane, PASSWORD).await.err().as_deref(), Some("CREDENTIALS_WRONG"));
    alive(&login(&plane, NEW).await.expect("the new password")).await;
    assert_eq!(alive(&plane.admin().await).await.0, 200, "nobody else is touched");

    invalid(&reset(&plane, &token, PASSWORD).await);
    assert_eq!(rows_with(&plane, &token).await, 0, "no token is kept");
    let audited = "SELECT count(*) FROM audit.logs l JOIN iam.users u ON u.id = l.account_id \
                   WHERE l.action LIKE '%.ResetPassword' AND u.email = 'admin@acme.example.com'";
    assert_eq!(plane.database.count(audited).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_once_and_asking_again_ends_nothing() {
    let plane = ControlPlane::start().await;
    plane.tenant("acme").await;
    let first = asked(&plane).await;
    let ends = "SELECT expires_at FROM iam.password_resets";
    let ends = async || plane.database.rows::<Value>(ends).await;
    let until_first = ends().await;
    let second = asked(&plane).await;
    assert_eq!((&second, ends().await), (&first, until_first), "the same right again, and no longer");
    for unknown in ["vsp_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "x", "' OR true --"] {
        invalid(&reset(&plane, unknown, NEW).await);
    }
    plane.mailed().await;
    let until = async |change: &str| plane.database.execute(&format!("UPDATE iam.password_resets SET {change}")).await;
    let term = "SELECT count(*) FROM iam.password_resets WHERE expires_at BETWEEN now() + interval '59 minutes' AND now() + interval '1 hour'";
    assert_eq!(plane.database.count(term).await, 1);
    until("expires_at = now() - interval '1 second'").await;
    invalid(&reset(&plane, &second, NEW).await);
    until("expires_at = now() + interval '1 hour'").await;
    let account = async |change: &str| {
        plane.database.execute(&format!("UPDATE iam.users SET {change} WHERE email = '{PERSON}'")).await;
    };
    account("state = 'INACTIVE'").await;
    invalid(&reset(&plane, &second, NEW).await);
    account("state = 'ACTIVE'").await;
    // Of many uses at once, one.
    let uses = futures::future::join_all((0..8).map(|_| reset(&plane, &second, NEW))).await;
    assert_eq!(uses.iter().filter(|(status, _)| *status == 200).count(), 1, "{uses:?}");
    uses.iter().filter(|(status, _)| *status != 200).for_each(invalid);
    assert_ne!(asked(&plane).await, second, "a right that was used is gone, and asking makes another");
    plane.database.execute("DELETE FROM iam.password_resets").await;
    login(&plane, NEW).await.expect("the new password");

    // What has ended is forgotten.
    let third = asked(&plane).await;
    plane.mailed().await;
    let prune = async || {
        let purpose = system(SystemPurpose::Reconcile);
        plane.store.system(purpose, async |tx| password_resets::prune(tx).await).await.expect("pruned")
    };
    assert_eq!(prune().await, 0);
    until("expires_at = now() - interval '1 second'").await;
    assert_eq!(prune().await, 1);
    invalid(&reset(&plane, &third, NEW).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_whether_an_address_has_an_account() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    plane
        .database
        .execute(
            "INSERT INTO iam.users (id, email, display_name) VALUES (gen_random_uuid(), 'invited@example.com', 'x'); \
             INSERT INTO iam.users (id, email, display_name, password_hash, state) \
             SELECT gen_random_uuid(), 'inactive@example.com', 'x', password_hash, 'INACTIVE' FROM iam.users LIMIT 1",
        )
        .await;
    let addresses = [
        PERSON,
        "ADMIN@Acme.example.com ",
        "nobody@example.com",
        "invited@example.com",
        "inactive@example.com",
        "x",
        "a\0b",
    ];
    for (number, email) in (1..).zip(addresses) {
        assert_eq!(ask(&plane, email).await, (200, json!({})), "{email}");
        let jobs = "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'password_reset_mail'";
        assert_eq!(plane.database.count(jobs).await, number, "{email}: a job each");
    }
    let shapes = "SELECT count(DISTINCT (queue, group_key, max_attempts, state, payload - 'account', length(payload::text))) \
                  FROM background_jobs.jobs WHERE kind = 'password_reset_mail'";
    assert_eq!(plane.database.count(shapes).await, 1, "all of one shape");
    let audited = "SELECT count(*) FROM audit.logs WHERE action LIKE '%.RequestPasswordReset'";
    assert_eq!(plane.database.count(audited).await, 7);
    assert_eq!(rows_with(&plane, "nobody@example.com").await, 0, "no address of a stranger is kept");

    let _worker = plane.work(Arc::new(NoProbe)).await;
    plane.mailed().await;
    let completed =
        "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'password_reset_mail' AND state = 'completed'";
    assert_eq!(plane.database.count(completed).await, 7);
    let mails =
        [PERSON, "nobody@example.com", "invited@example.com", "inactive@example.com"].map(|to| plane.mail_to(to).len());
    assert_eq!(mails, [2, 0, 0, 0]);
    let missing = Rest::new(&plane.http, None).call("POST", "/v1/auth:resetPassword", Some(json!({}))).await;
    let fields = refused(&missing, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
    assert_eq!(fields, ["token", "password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_sends_the_same_token_again() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    for (point, mails) in [(Point::BeforeCall, 1), (Point::AfterCall, 2)] {
        let before = plane.mail_to(PERSON).len();
        let probe = Arc::new(CrashProbe::new(Some(Crash { step: "password_reset_mail.send".to_owned(), point })));
        let victim = plane.work(Arc::clone(&probe) as _).await;
        let (status, empty): (u16, Value) = ask(&plane, PERSON).await;
        assert_eq!((status, empty), (200, json!({})));
        probe.crashed().await;
        drop(victim);
        let survivor = plane.work(Arc::new(NoProbe)).await;
        plane.mailed().await;
        let sent = plane.mail_to(PERSON).split_off(before);
        assert_eq!(sent.len(), mails, "{point:?}");
        let (last, earlier) = sent.split_last().expect("a mail");
        for mail in earlier {
            assert_eq!(token_of(mail), token_of(last));
        }
        assert_eq!(reset(&plane, &token_of(last), NEW).await.0, 200);
        survivor.drain().await;
    }
}

/// Nobody's mailbox is filled, by whoever asks, and no tenant fills those of strangers.
#[tokio::test(flavor = "multi_thread")]
async fn mails_per_address_and_tenant_are_limited() {
    let few = virtualstack_server::Config {
        mails_per_address_per_hour: 3,
        mails_per_tenant_per_hour: 5,
        auth_per_minute: 10_000,
        auth_per_address_per_minute: 10_000,
        ..Default::default()
    };
    let plane = ControlPlane::start_with(few).await;
    let acme = plane.tenant("acme").await;
    let limited = |reply: &Reply| {
        refused(reply, 429, "RESOURCE_EXHAUSTED", "RATE_LIMITED");
    };
    // Whether or not somebody has the address, and whichever way it is written.
    for email in ["ADMIN@demo.example.com", "nobody@example.com"] {
        for _ in 0..3 {
            assert_eq!(ask(&plane, email).await.0, 200, "{email}");
        }
        limited(&ask(&plane, &email.to_lowercase()).await);
    }
    let jobs = "SELECT count(*) FROM background_jobs.jobs WHERE queue = 'mail'";
    assert_eq!(plane.database.count(jobs).await, 6);
    // What asks for a mail: a password reset, an invitation, another one, a member to be, a tenant's first admin.
    let rest = acme.rest();
    let invite = async |email: &str, query: &str| {
        let body = json!({"email": email, "role": "roles/viewer"});
        rest.call("POST", &format!("/v1/invitations{query}"), Some(body)).await
    };
    for _ in 0..7 {
        assert_eq!(invite("guest@example.com", "?validateOnly=true").await.0, 200, "a dry run sends nothing");
    }
    let (status, invitation) = invite("guest@example.com", "").await;
    assert_eq!(status, 200, "{invitation}");
    let resend = format!("/v1/{}:resend", invitation["name"].as_str().expect("a name"));
    for _ in 0..2 {
        assert_eq!(rest.call("POST", &resend, Some(json!({}))).await.0, 200);
    }
    limited(&rest.call("POST", &resend, Some(json!({}))).await);
    let user = json!({"email": "guest@example.com", "displayName": "G"});
    limited(&rest.call("POST", "/v1/users", Some(user)).await);
    let tenant = json!({"tenant": {"slug": "third", "displayName": "Third"}, "adminEmail": "guest@example.com"});
    let (status, told) = plane.operator().await.rest().call("POST", "/v1/tenants", Some(tenant)).await;
    limited(&(status, told));
    limited(&ask(&plane, "guest@example.com").await);
    // And so many of a tenant, to whomever.
    assert_eq!(invite("second@example.com", "").await.0, 200);
    assert_eq!(invite("third@example.com", "").await.0, 200);
    limited(&invite("fourth@example.com", "").await);
    let other = plane.tenant("rival").await.rest();
    let body = json!({"email": "fourth@example.com", "role": "roles/viewer"});
    assert_eq!(other.call("POST", "/v1/invitations", Some(body)).await.0, 200, "another tenant's are its own");
}
