//! Rate limits: how many calls are let through, who shares them, and what the others are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diesel_async::SimpleAsyncConnection as _;
use futures::future::join_all;
use serde_json::{Value, json};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use virtualstack_proto::GATEWAY_SECRET;
use virtualstack_proto::virtualstack::iam::v1::auth_service_client::AuthServiceClient;
use virtualstack_proto::virtualstack::iam::v1::session_service_client::SessionServiceClient;
use virtualstack_proto::virtualstack::iam::v1::{GetCurrentSessionRequest, LoginRequest, RefreshRequest};
use virtualstack_server::Config;
use virtualstack_store::iam::rate_limits::{self, Limit};
use virtualstack_store::{Store, SystemPurpose};

use crate::api::refused;
use crate::support::{ControlPlane, Database, PASSWORD, Rest, SECRET, Session, reason, system};

const ADMIN: &str = "admin@example.com";
const HERE: &str = "192.0.2.1";
const ELSEWHERE: &str = "198.51.100.7";

/// Tries to log in with a wrong password, as a gateway does for a client.
async fn guess(plane: &ControlPlane, email: &str, client: &str) -> Status {
    let mut auth = AuthServiceClient::connect(plane.grpc.clone()).await.expect("a connection");
    let login =
        LoginRequest { email: email.to_owned(), password: "not the password".to_owned(), tenant: String::new() };
    auth.login(from(client, login)).await.expect_err("a wrong password")
}

async fn refresh(plane: &ControlPlane, token: &str, client: &str) -> Result<String, Status> {
    let mut auth = AuthServiceClient::connect(plane.grpc.clone()).await.expect("a connection");
    let tokens = auth.refresh(from(client, RefreshRequest { refresh_token: token.to_owned() })).await?;
    Ok(tokens.into_inner().refresh_token)
}

fn from<T>(client: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("x-forwarded-for", client.parse().expect("metadata"));
    request.metadata_mut().insert(GATEWAY_SECRET, SECRET.parse().expect("metadata"));
    request
}

/// A control plane that accepts so few guesses a minute that none comes back while a test runs.
async fn strict(auth_per_minute: u32, auth_per_address_per_minute: u32) -> ControlPlane {
    ControlPlane::start_with(Config { auth_per_minute, auth_per_address_per_minute, ..Default::default() }).await
}

#[track_caller]
fn limited(status: &Status) {
    assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"), "{status:?}");
}

/// Why guesses were refused, one after the other.
async fn reasons(plane: &ControlPlane, guesses: &[(&str, &str)]) -> Vec<String> {
    let mut reasons = Vec::new();
    for (email, client) in guesses {
        reasons.push(reason(&guess(plane, email, client).await));
    }
    reasons
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_guesses_are_taken_at_once() {
    let plane = ControlPlane::start_with(Config::default()).await;
    let guesses = join_all((0..15).map(|_| guess(&plane, ADMIN, HERE))).await;
    let wrong = guesses.iter().filter(|status| reason(status) == "CREDENTIALS_WRONG").count();
    assert_eq!(wrong, 10, "{guesses:?}");
    guesses.iter().filter(|status| reason(status) != "CREDENTIALS_WRONG").for_each(limited);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guesser_locks_out_nobody_but_themselves() {
    let plane = strict(2, 0).await;
    assert_eq!(reasons(&plane, &[(ADMIN, HERE); 2]).await, ["CREDENTIALS_WRONG"; 2]);
    limited(&guess(&plane, ADMIN, HERE).await);
    // However the address is written.
    limited(&guess(&plane, " ADMIN@Example.com", HERE).await);
    plane.admin().await;
    // Another account, and another client. It is the same whether or not there is such an account.
    for (email, client) in [("nobody@example.com", HERE), (ADMIN, ELSEWHERE)] {
        let desired = ["CREDENTIALS_WRONG", "CREDENTIALS_WRONG", "RATE_LIMITED"];
        assert_eq!(reasons(&plane, &[(email, client); 3]).await, desired, "{email} from {client}");
    }

    // Half a minute later there is one more, and no second one.
    plane.database.execute("UPDATE iam.rate_limits SET full_at = full_at - interval '30 seconds'").await;
    assert_eq!(reasons(&plane, &[(ADMIN, HERE); 2]).await, ["CREDENTIALS_WRONG", "RATE_LIMITED"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_counted_over_all_accounts_and_by_its_network() {
    let plane = strict(0, 3).await;
    let guesses = ["a@example.com", "b@example.com", "c@example.com"].map(|email| (email, HERE));
    assert_eq!(reasons(&plane, &guesses).await, ["CREDENTIALS_WRONG"; 3]);
    limited(&guess(&plane, "d@example.com", HERE).await);
    limited(&refresh(&plane, "vsr_unknown", HERE).await.expect_err("one limit for all kinds"));
    assert_eq!(reasons(&plane, &[("d@example.com", ELSEWHERE)]).await, ["CREDENTIALS_WRONG"]);

    let same = ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3"].map(|client| (ADMIN, client));
    assert_eq!(reasons(&plane, &same).await, ["CREDENTIALS_WRONG"; 3]);
    limited(&guess(&plane, ADMIN, "2001:db8::4").await);
    assert_eq!(reasons(&plane, &[(ADMIN, "2001:db8:0:1::1")]).await, ["CREDENTIALS_WRONG"]);
    limited(&guess(&plane, ADMIN, &format!("::ffff:{HERE}")).await);
    // The address in clear stands nowhere.
    let clear = format!("SELECT count(*) FROM iam.rate_limits r WHERE r::text LIKE '%{HERE}%' OR length(key) <> 32");
    assert_eq!(plane.database.count(&clear).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn refreshes_are_counted_by_the_account_of_the_token() {
    let plane = strict(2, 0).await;
    let (one, other) = (plane.admin().await, plane.admin().await);
    let first = refresh(&plane, &one.tokens.refresh_token, HERE).await.expect("tokens");
    let second = refresh(&plane, &first, HERE).await.expect("tokens");
    limited(&refresh(&plane, &second, HERE).await.expect_err("a third"));
    limited(&refresh(&plane, &other.tokens.refresh_token, HERE).await.expect_err("another session of the account"));
    refresh(&plane, &second, ELSEWHERE).await.expect("the limit has not used the token up");
    // Tokens of nobody count each by itself.
    for token in ["vsr_a", "vsr_b"] {
        for desired in ["REFRESH_TOKEN_INVALID", "REFRESH_TOKEN_INVALID", "RATE_LIMITED"] {
            assert_eq!(reason(&refresh(&plane, token, HERE).await.expect_err("invalid")), desired, "{token}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_that_is_undone_is_counted_all_the_same() {
    let plane = strict(3, 0).await;
    let session = plane.admin().await;
    plane.database.execute("UPDATE iam.sessions SET ended_at = now()").await;
    for desired in ["SESSION_ENDED", "SESSION_ENDED", "SESSION_ENDED", "RATE_LIMITED"] {
        let refused = refresh(&plane, &session.tokens.refresh_token, HERE).await.expect_err("ended");
        assert_eq!(reason(&refused), desired);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_count_guesses_together() {
    let config = Config { auth_per_minute: 6, auth_per_address_per_minute: 10, ..Default::default() };
    let one = ControlPlane::start_with(config.clone()).await;
    let two = ControlPlane::on_with(one.database.clone(), config).await;
    let at = |round: usize| if round.is_multiple_of(2) { &one } else { &two };
    let guesses = join_all((0..9).map(|round| guess(at(round), ADMIN, HERE))).await;
    assert_eq!(guesses.iter().filter(|status| reason(status) == "CREDENTIALS_WRONG").count(), 6, "{guesses:?}");
    assert_eq!(reasons(&two, &[("a@example.com", HERE)]).await, ["CREDENTIALS_WRONG"], "the tenth of the address");
    limited(&guess(&one, "a@example.com", HERE).await);
}

/// What a reply says in its RateLimit headers and Retry-After.
fn told(headers: &http::HeaderMap) -> [Option<&str>; 3] {
    ["ratelimit-policy", "ratelimit", "retry-after"].map(|name| Some(headers.get(name)?.to_str().expect("text")))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_for_how_long() {
    let plane = strict(1, 0).await;
    reasons(&plane, &[(ADMIN, "127.0.0.1")]).await;

    // gRPC: a detail, and metadata.
    let status = guess(&plane, ADMIN, "127.0.0.1").await;
    limited(&status);
    let delay = status.get_details_retry_info().and_then(|info| info.retry_delay).expect("RetryInfo");
    assert!((50.0..=60.0).contains(&delay.as_secs_f64()), "{delay:?}");
    let headers = status.metadata().clone().into_headers();
    let seconds = delay.as_secs_f64().ceil();
    let left = format!("\"login\";r=0;t={seconds}");
    assert_eq!(told(&headers), [Some("\"login\";q=1;w=60"), Some(left.as_str()), None]);

    // REST: status, body and headers.
    let rest = Rest::new(&plane.http, None);
    let login = json!({"email": ADMIN, "password": PASSWORD});
    let response = rest.request("POST", "/v1/auth:login").json(&login).send().await.expect("a reply");
    let headers = response.headers().clone();
    let body: Value = response.json().await.expect("JSON");
    refused(&(429, body.clone()), 429, "RESOURCE_EXHAUSTED", "RATE_LIMITED");
    let [policy, left, after] = told(&headers);
    assert_eq!(policy, Some("\"login\";q=1;w=60"));
    let after: u32 = after.and_then(|text| text.parse().ok()).expect("Retry-After in seconds");
    assert!((40..=60).contains(&after), "{after}");
    assert_eq!(left, Some(format!("\"login\";r=0;t={after}").as_str()));
    let details = body["error"]["details"].as_array().expect("details");
    assert!(details.iter().any(|detail| detail["@type"] == "type.googleapis.com/google.rpc.RetryInfo"), "{body}");

    // Browsers may read it over grpc-web.
    let config =
        Config { auth_per_minute: 1, cors_origins: vec!["https://console.example".to_owned()], ..Default::default() };
    let plane = ControlPlane::start_with(config).await;
    let request = Rest::new(&plane.grpc, None).request("POST", "/virtualstack.iam.v1.AuthService/Login");
    let request = request.header("origin", "https://console.example").header("content-type", "application/grpc-web");
    let response = request.body(vec![0; 5]).send().await.expect("a reply");
    let exposed = response.headers()["access-control-expose-headers"].to_str().expect("text").to_owned();
    assert!(
        ["ratelimit", "ratelimit-policy"].iter().all(|name| exposed.split(',').any(|one| one == *name)),
        "{exposed}"
    );
}

/// Calls as fast as it goes from eight tasks for a while; how many were let in.
async fn storm(sessions: &[Session], time: Duration) -> u32 {
    let accepted = Arc::new(AtomicU32::new(0));
    let end = Instant::now() + time;
    let tasks = (0..8).map(|task| {
        let (session, accepted) = (sessions[task % sessions.len()].clone(), Arc::clone(&accepted));
        tokio::spawn(async move {
            while Instant::now() < end {
                match call(&session).await {
                    Ok(()) => _ = accepted.fetch_add(1, Ordering::Relaxed),
                    Err(status) => limited(&status),
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("no panic");
    }
    accepted.load(Ordering::Relaxed)
}

async fn call(session: &Session) -> Result<(), Status> {
    let mut sessions = SessionServiceClient::new(session.channel.clone());
    sessions.get_current_session(session.request(GetCurrentSessionRequest::default())).await.map(|_| ())
}

/// Whether PostgreSQL gets to know a bucket within a time.
async fn shared(plane: &ControlPlane, within: Duration) -> bool {
    let found = async {
        while plane.database.count("SELECT count(*) FROM iam.rate_limits").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(within, found).await.is_ok()
}

/// A control plane that counts calls, and guesses not at all.
fn calls(calls_per_second: u32, calls_burst: u32) -> Config {
    Config { auth_per_minute: 0, auth_per_address_per_minute: 0, calls_per_second, calls_burst, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_principal_is_slowed_down_and_no_other() {
    let plane = ControlPlane::start_with(calls(1, 5)).await;
    let (busy, same) = (plane.admin().await, plane.admin().await);
    let other = plane.member("ada@example.com", "demo", "user").await;
    let began = Instant::now();
    let replies = join_all((0..30).map(|_| call(&busy))).await;
    let refused: Vec<_> = replies.into_iter().filter_map(Result::err).collect();
    let passed = u64::try_from(30 - refused.len()).expect("a number");
    assert!((5..=5 + began.elapsed().as_secs() + 1).contains(&passed), "{passed}");
    refused.iter().for_each(limited);
    let policy = refused[0].metadata().clone().into_headers();
    assert_eq!(told(&policy)[0], Some("\"calls\";q=5;w=5"));
    assert!(refused[0].get_details_retry_info().and_then(|info| info.retry_delay).is_some());
    limited(&call(&same).await.expect_err("another session of the same member is no other"));
    call(&other).await.expect("another member has their own");
    let (status, _) = Rest::new(&plane.http, None).call("GET", "/.well-known/jwks.json", None).await;
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_busy_principals_cost_a_statement() {
    let plane = ControlPlane::start_with(calls(200, 400)).await;
    let session = plane.admin().await;
    for reply in join_all((0..19).map(|_| call(&session))).await {
        reply.expect("let in");
    }
    tokio::time::sleep(Duration::from_millis(1100)).await;
    call(&session).await.expect("let in");
    assert!(!shared(&plane, Duration::from_secs(2)).await, "19 calls in a second and one in the next");
    for reply in join_all((0..30).map(|_| call(&session))).await {
        reply.expect("let in");
    }
    assert!(shared(&plane, Duration::from_secs(30)).await, "more than a tenth of what a second brings");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_what_a_principal_has() {
    let config = calls(20, 20);
    let one = ControlPlane::start_with(config.clone()).await;
    let two = ControlPlane::on_with(one.database.clone(), config).await;
    let here = one.admin().await;
    let mut there = two.admin().await;
    there.tokens = here.tokens.clone();
    let began = Instant::now();
    let accepted = f64::from(storm(&[here, there], Duration::from_secs(4)).await);
    // Apart they would let twice as many in.
    let (tokens, unsettled, in_flight) = (20.0 + 20.0 * began.elapsed().as_secs_f64(), 2.0 * 2.0, 8.0);
    assert!(accepted <= tokens + unsettled + in_flight, "{accepted} of {tokens}");
    assert!(accepted >= 0.7 * tokens, "{accepted} of {tokens}: sharing must not cost the principal much");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_database_does_not_count_a_server_does() {
    let plane = ControlPlane::start_with(calls(2, 20)).await;
    let session = plane.admin().await;
    let mut admin = plane.database.admin().await;
    admin.batch_execute("BEGIN; LOCK TABLE iam.rate_limits").await.expect("a lock");
    let began = Instant::now();
    let mut accepted = 0.0;
    let refused = loop {
        match call(&session).await {
            Ok(()) => accepted += 1.0,
            Err(status) => break status,
        }
    };
    limited(&refused);
    let tokens = 20.0 + 2.0 * began.elapsed().as_secs_f64();
    assert!((20.0..=tokens).contains(&accepted), "{accepted} of {tokens}");
    admin.batch_execute("COMMIT").await.expect("no lock");
    // Then it counts again.
    let mut calls = 0;
    while plane.database.count("SELECT count(*) FROM iam.rate_limits").await == 0 {
        calls += 1;
        assert!(calls < 20, "nothing was settled");
        tokio::time::sleep(Duration::from_millis(600)).await;
        call(&session).await.expect("let in");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_connections_none_gets_more_than_there_is() {
    let database = Database::new().await;
    let config = virtualstack_store::Config { max_connections: 50, ..database.config.clone() };
    let store = Store::new(&config).expect("a store");
    let limit = Limit { rate: 0.001, burst: 20.0 };
    let take = || {
        let store = store.clone();
        tokio::spawn(async move {
            let take = async |tx: &mut virtualstack_store::SystemTx| rate_limits::take(tx, b"key", limit).await;
            store.system(system(SystemPurpose::RateLimit), take).await.expect("an answer")
        })
    };
    let taken = join_all((0..200).map(|_| take())).await;
    let taken: Vec<_> = taken.into_iter().map(|taken| taken.expect("no panic")).collect();
    assert_eq!(taken.iter().filter(|taken| taken.granted).count(), 20);
    for refused in taken.iter().filter(|taken| !taken.granted) {
        assert!(refused.left < 1.0 && (900.0..=1000.0).contains(&refused.wait), "{refused:?}");
    }

    // What is spent already becomes a debt, up to one burst.
    for (spent, left) in [(5.0, -5.0), (10.0, -15.0), (10.0, -20.0)] {
        let settle = async |tx: &mut virtualstack_store::SystemTx| rate_limits::settle(tx, b"key", limit, spent).await;
        let settled = store.system(system(SystemPurpose::RateLimit), settle).await.expect("an answer");
        assert!((settled.left - left).abs() < 0.5, "{settled:?}, not {left}");
    }

    // A bucket is forgotten when it is full, and not before.
    let prune = || store.system(system(SystemPurpose::Reconcile), async |tx| rate_limits::prune(tx).await);
    assert_eq!(prune().await.expect("pruned"), 0);
    database.execute("UPDATE iam.rate_limits SET full_at = clock_timestamp()").await;
    assert_eq!(prune().await.expect("pruned"), 1);
    assert!(take().await.expect("no panic").granted);
}
