//! Secrets are planted in every place that takes or gives one, and then looked for in every place that keeps something:
//! the log at its most talkative, replies that are errors, and a dump of the database with audit log and jobs.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use mailparse::{MailHeaderMap as _, parse_mail};
use serde_json::{Value, json};
use tokio::process::Command;

use super::virtualstack;
use crate::support::{Database, Rest};

const PASSWORD: &str = "Planted+Pass/word one?";
const WRONG: &str = "Planted wrong&pass word=2";
const CHANGED: &str = "Planted changed;pass word 3";
const RESET: &str = "Planted reset pass#word 4";
const INVITED: &str = "Planted invited pa$$word 5";
const MEMBERS: &str = "Planted member pass%word 6";

/// What was planted, and what is looked through.
#[derive(Default)]
struct Planted {
    secrets: Vec<(&'static str, String)>,
    errors: String,
}

impl Planted {
    fn plant(&mut self, what: &'static str, secret: &str) {
        assert!(secret.len() > 10, "{what}: {secret:?} is too short to be told from chance");
        self.secrets.push((what, secret.to_owned()));
    }

    fn token(&mut self, what: &'static str, answer: &Value, field: &str) -> String {
        let secret = answer[field].as_str().unwrap_or_else(|| panic!("{what}: no {field} in {answer}")).to_owned();
        self.plant(what, &secret);
        secret
    }

    /// A call that must succeed.
    async fn ok(rest: &Rest, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = rest.call(method, path, Some(body)).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    /// A call that must fail; what it says is kept.
    async fn fails(&mut self, rest: &Rest, method: &str, path: &str, body: Value) {
        let (status, answer) = rest.call(method, path, Some(body)).await;
        assert!(status >= 400, "{method} {path}: {answer}");
        self.errors.push_str(&answer.to_string());
        self.errors.push('\n');
    }

    fn look_through(&self, place: &str, text: &str) {
        for (what, secret) in &self.secrets {
            for (form, encoded) in forms(secret) {
                if let Some(at) = text.find(&encoded) {
                    let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
                    let line: String = text[from..].lines().next().unwrap_or_default().chars().take(300).collect();
                    panic!("{place}: shows the {what} ({form}): {line}");
                }
            }
        }
    }
}

/// A secret as it is, and as somebody might have written it.
fn forms(secret: &str) -> Vec<(&'static str, String)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let percent = |keep: fn(u8) -> bool| {
        let encode = |byte: u8| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        secret.bytes().map(encode).collect::<String>()
    };
    let mut forms = vec![
        ("clear", secret.to_owned()),
        ("JSON", json!(secret).to_string().trim_matches('"').to_owned()),
        ("hex", hex(secret.as_bytes())),
        ("HEX", hex(secret.as_bytes()).to_uppercase()),
        ("URL", percent(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))),
        (
            "URL, + for space",
            percent(|byte| byte.is_ascii_alphanumeric() || b"-._~ ".contains(&byte)).replace(' ', "+"),
        ),
    ];
    for (name, engine) in [
        ("base64", &STANDARD),
        ("base64url", &URL_SAFE),
        ("base64, no =", &STANDARD_NO_PAD),
        ("base64url, no =", &URL_SAFE_NO_PAD),
    ] {
        forms.push((name, engine.encode(secret)));
    }
    // The random part of a token, as bytes that were written in another way.
    if let Some((_, random)) = secret.split_once('_')
        && let Ok(bytes) = URL_SAFE_NO_PAD.decode(random)
        // A signature may have its only "_" near its end: a few bytes are found by chance.
        && bytes.len() > 10
    {
        forms.push(("its bytes in hex", hex(&bytes)));
        forms.push(("its bytes in base64", STANDARD.encode(&bytes)));
    }
    // The secret part of an API key alone.
    if let Some(key) = secret.strip_prefix("vsk_").and_then(|key| key.split_once('_')) {
        forms.push(("its secret part", key.1.to_owned()));
        forms.push(("its secret part without the check", key.1[..43].to_owned()));
    }
    forms
}

/// The token of the mail to an address, which stands by itself on a line.
async fn token_of_mail(folder: &Path, to: &str, prefix: &str) -> String {
    for _ in 0..400 {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let bytes = std::fs::read(entry.path()).unwrap_or_default();
            let Ok(mail) = parse_mail(&bytes) else { continue };
            if mail.headers.get_first_value("To").as_deref() != Some(to) {
                continue;
            }
            let body = mail.subparts.first().unwrap_or(&mail).get_body().expect("a text");
            if let Some(token) = body.lines().map(str::trim).find(|line| line.starts_with(prefix)) {
                return token.to_owned();
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no mail to {to} with a token in {}", folder.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn no_planted_secret_is_found_anywhere() {
    let database = Database::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    let ready = folder.path().join("ready.json");
    let log = folder.path().join("log");
    let mut planted = Planted::default();
    for (what, secret) in [
        ("admin's password", PASSWORD),
        ("wrong password", WRONG),
        ("changed password", CHANGED),
        ("reset password", RESET),
        ("invited person's password", INVITED),
        ("member's password", MEMBERS),
    ] {
        planted.plant(what, secret);
    }
    let settings = [
        ("VIRTUALSTACK_ADMIN_EMAIL", "admin@example.com"),
        ("VIRTUALSTACK_ADMIN_PASSWORD", PASSWORD),
        // Everything that anybody in the process has to say.
        ("VIRTUALSTACK_LOG_FILTER", "trace"),
        ("VIRTUALSTACK_SERVER_AUTH_PER_MINUTE", "1000"),
    ];
    let data = folder.path().join("data");
    let arguments = [
        "up",
        "--data-dir",
        data.to_str().expect("text"),
        "--ready-file",
        ready.to_str().expect("text"),
        "--grpc-addr",
        "127.0.0.1:0",
        "--http-addr",
        "127.0.0.1:0",
        "--ops-addr",
        "127.0.0.1:0",
    ];
    let sink = || Stdio::from(std::fs::OpenOptions::new().append(true).create(true).open(&log).expect("a log"));
    let mut child =
        virtualstack(&arguments, &database, &settings).stdout(Stdio::null()).stderr(sink()).spawn().expect("a process");
    let mut told = None;
    for _ in 0..400 {
        if let Ok(text) = std::fs::read_to_string(&ready) {
            told = Some(serde_json::from_str::<Value>(&text).expect("JSON"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let http = told.expect("ready in time")["http"].as_str().expect("a URL").to_owned();
    let anonymous = Rest::new(&http, None);
    let login = |password: &str| json!({"email": "admin@example.com", "password": password, "tenant": "demo"});

    // Signing in, right and wrong; the password where the address belongs; refreshing, with use and reuse.
    let tokens = Planted::ok(&anonymous, "POST", "/v1/auth:login", login(PASSWORD)).await;
    let access = planted.token("access token", &tokens, "accessToken");
    let refresh = planted.token("refresh token", &tokens, "refreshToken");
    planted.fails(&anonymous, "POST", "/v1/auth:login", login(WRONG)).await;
    planted.fails(&anonymous, "POST", "/v1/auth:login", json!({"email": WRONG, "password": WRONG})).await;
    planted.fails(&anonymous, "POST", "/v1/auth:login", json!({"email": 1, "password": WRONG})).await;
    let other = Planted::ok(&anonymous, "POST", "/v1/auth:login", login(PASSWORD)).await;
    let first = planted.token("refresh token that is reused", &other, "refreshToken");
    let renewed = Planted::ok(&anonymous, "POST", "/v1/auth:refresh", json!({"refreshToken": first})).await;
    planted.token("second access token", &renewed, "accessToken");
    planted.token("second refresh token", &renewed, "refreshToken");
    Planted::ok(&anonymous, "POST", "/v1/auth:refresh", json!({"refreshToken": first})).await;
    planted.fails(&anonymous, "POST", "/v1/auth:refresh", json!({"refreshToken": first})).await;
    planted.fails(&anonymous, "POST", &format!("/v1/auth:login?password={PASSWORD}"), json!({})).await;
    planted.fails(&anonymous, "GET", &format!("/v1/vms?access_token={access}"), json!({})).await;
    planted.fails(&Rest::new(&http, Some(&refresh)), "GET", "/v1/vms", json!({})).await;

    // API keys: made, used, misused, rotated.
    let admin = Rest::new(&http, Some(&access));
    let key =
        Planted::ok(&admin, "POST", "/v1/apiKeys", json!({"displayName": "robot", "permissions": ["vm:read"]})).await;
    let secret = planted.token("API key", &key, "secret");
    let robot = Rest::with_key(&http, &secret);
    assert_eq!(robot.call("GET", "/v1/vms", None).await.0, 200);
    planted
        .fails(&robot, "POST", "/v1/users", json!({"email": "x@example.com", "displayName": "X", "password": MEMBERS}))
        .await;
    planted.fails(&Rest::with_key(&http, &secret[..secret.len() - 1]), "GET", "/v1/vms", json!({})).await;
    planted.fails(&anonymous, "GET", &format!("/v1/vms?x-api-key={secret}"), json!({})).await;
    let path = format!("/v1/{}:rotate", key["name"].as_str().expect("a name"));
    let rotated = Planted::ok(&admin, "POST", &path, json!({})).await;
    planted.token("rotated API key", &rotated, "secret");

    // Members and invitations.
    let member =
        json!({"email": "member@example.com", "displayName": "Member", "password": MEMBERS, "roles": ["roles/viewer"]});
    Planted::ok(&admin, "POST", "/v1/users", member).await;
    Planted::ok(&admin, "POST", "/v1/invitations", json!({"email": "guest@example.com", "role": "roles/viewer"})).await;
    let mails = data.join("mail");
    let token = token_of_mail(&mails, "guest@example.com", "vsi_").await;
    planted.plant("invitation token", &token);
    Planted::ok(&anonymous, "POST", "/v1/invitations:verify", json!({"token": token})).await;
    planted.fails(&anonymous, "POST", "/v1/invitations:accept", json!({"token": token, "password": "short"})).await;
    let accept = json!({"token": token, "password": INVITED, "displayName": "Guest"});
    Planted::ok(&anonymous, "POST", "/v1/invitations:accept", accept.clone()).await;
    planted.fails(&anonymous, "POST", "/v1/invitations:accept", accept).await;

    // Passwords: changed, and reset.
    let change = json!({"oldPassword": PASSWORD, "newPassword": CHANGED});
    planted
        .fails(&admin, "POST", "/v1/users/me:changePassword", json!({"oldPassword": WRONG, "newPassword": CHANGED}))
        .await;
    Planted::ok(&admin, "POST", "/v1/users/me:changePassword", change).await;
    Planted::ok(&anonymous, "POST", "/v1/auth:requestPasswordReset", json!({"email": "admin@example.com"})).await;
    let token = token_of_mail(&mails, "admin@example.com", "vsp_").await;
    planted.plant("reset token", &token);
    planted
        .fails(&anonymous, "POST", "/v1/auth:resetPassword", json!({"token": token, "password": "password1234"}))
        .await;
    Planted::ok(&anonymous, "POST", "/v1/auth:resetPassword", json!({"token": token, "password": RESET})).await;
    planted.fails(&anonymous, "POST", "/v1/auth:resetPassword", json!({"token": token, "password": RESET})).await;
    Planted::ok(&anonymous, "POST", "/v1/auth:login", login(RESET)).await;
    planted.fails(&admin, "GET", "/v1/vms", json!({})).await;

    // DeniedCalls are written beside the calls: SIGTERM makes sure that they are.
    let pid = child.id().expect("running").to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.expect("kill").success());
    let ended = tokio::time::timeout(Duration::from_secs(30), child.wait()).await.expect("in time").expect("an end");
    assert_eq!(ended.code(), Some(0));
    let log = std::fs::read_to_string(&log).expect("a log");
    let dump =
        Command::new("pg_dump").arg("--inserts").arg(database.config.migrate_url()).output().await.expect("pg_dump");
    assert!(dump.status.success(), "{}", String::from_utf8_lossy(&dump.stderr));
    let dump = String::from_utf8(dump.stdout).expect("text");

    // Else nothing would be shown: the places are full, and the needles are such as are found.
    assert!(
        log.lines().count() > 500 && log.contains("\"TRACE\""),
        "the log says little: {} lines",
        log.lines().count()
    );
    for needle in
        ["INSERT INTO audit.logs", "INSERT INTO background_jobs.jobs", "CREDENTIALS_WRONG", "guest@example.com"]
    {
        assert!(dump.contains(needle), "the dump lacks {needle}");
    }
    assert!(planted.errors.lines().count() >= 12);
    let found =
        std::panic::catch_unwind(|| planted.look_through("itself", &format!("x {} y", URL_SAFE.encode(PASSWORD))));
    assert!(found.is_err(), "a planted secret is found when it is there");

    planted.look_through("log", &log);
    planted.look_through("error replies", &planted.errors);
    planted.look_through("database", &dump);
}
