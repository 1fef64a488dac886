//! Signing in and out, tokens, the caller's own account, and tenants.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};

use crate::api::{Reply, refused, send};
use crate::support::{ControlPlane, DEMO, PASSWORD, Rest};

const ADMIN: &str = "admin@example.com";

async fn login(rest: &Rest, email: &str, password: &str, tenant: &str) -> Reply {
    let body = json!({"email": email, "password": password, "tenant": tenant});
    rest.call("POST", "/v1/auth:login", Some(body)).await
}

async fn refresh(rest: &Rest, token: &Value) -> Reply {
    rest.call("POST", "/v1/auth:refresh", Some(json!({"refreshToken": token}))).await
}

async fn current(plane: &ControlPlane, token: &Value) -> Reply {
    Rest::new(&plane.http, token.as_str()).call("GET", "/v1/sessions/current", None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_learns_why_a_login_was_refused() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    plane.database.execute("UPDATE iam.users SET state = 'INACTIVE' WHERE email = 'admin@acme.example.com'").await;
    let rest = Rest::new(&plane.http, None);

    let wrong = login(&rest, ADMIN, "not the password", DEMO).await;
    refused(&wrong, 401, "UNAUTHENTICATED", "CREDENTIALS_WRONG");
    for (email, password) in [
        ("nobody@example.com", PASSWORD),
        ("not an address", PASSWORD),
        ("admin@acme.example.com", PASSWORD),
        ("admin@acme.example.com", "not the password"),
        (ADMIN, &format!("{PASSWORD} ")),
        (ADMIN, &PASSWORD.to_uppercase()),
    ] {
        assert_eq!(login(&rest, email, password, DEMO).await, wrong, "{email} {password}");
    }
    let (status, tokens) = login(&rest, &format!(" {} ", ADMIN.to_uppercase()), PASSWORD, "").await;
    assert_eq!(status, 200, "addresses are compared in one form: {tokens}");
    assert_eq!((&tokens["tokenType"], &tokens["expiresIn"]), (&json!("Bearer"), &json!(900)));
    let tenants: Vec<_> = tokens["tenants"].as_array().expect("tenants").iter().map(|one| &one["slug"]).collect();
    assert_eq!(tenants, [DEMO, "provider"]);

    // Only who knows the password learns which tenants there are for the account.
    refused(&login(&rest, ADMIN, PASSWORD, "acme").await, 403, "PERMISSION_DENIED", "TENANT_NOT_YOURS");
    refused(&login(&rest, ADMIN, PASSWORD, "nowhere").await, 403, "PERMISSION_DENIED", "TENANT_NOT_YOURS");
    let missing = rest.call("POST", "/v1/auth:login", Some(json!({}))).await;
    assert_eq!(refused(&missing, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["email", "password"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_good_once() {
    let plane = ControlPlane::without_worker().await;
    let rest = Rest::new(&plane.http, None);
    let sign_in = async || login(&rest, ADMIN, PASSWORD, DEMO).await.1;
    let gone = |reply: &Reply| _ = refused(reply, 401, "UNAUTHENTICATED", "REFRESH_TOKEN_INVALID");

    // Rotation: each use gives another, for the same session and tenant.
    let first = sign_in().await;
    let (status, second) = refresh(&rest, &first["refreshToken"]).await;
    assert_eq!(status, 200, "{second}");
    assert_ne!(first["refreshToken"], second["refreshToken"]);
    assert_eq!(first["tenant"], second["tenant"]);
    let session = current(&plane, &first["accessToken"]).await.1["name"].clone();
    assert_eq!(current(&plane, &second["accessToken"]).await.1["name"], session);

    // The reply got lost: the same client asks again, and is answered, once.
    let (status, again) = refresh(&rest, &first["refreshToken"]).await;
    assert_eq!(status, 200, "{again}");
    gone(&refresh(&rest, &first["refreshToken"]).await);
    for token in [&second, &again] {
        refused(&current(&plane, &token["accessToken"]).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
        refused(&refresh(&rest, &token["refreshToken"]).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    }

    // Later than that, or from elsewhere, somebody else holds the token: the session ends.
    for theft in ["used_at = used_at - interval '11 seconds'", "used_from = '192.0.2.7'"] {
        let first = sign_in().await;
        let (_, second) = refresh(&rest, &first["refreshToken"]).await;
        plane.database.execute(&format!("UPDATE iam.refresh_tokens SET {theft} WHERE used_at IS NOT NULL")).await;
        let other = sign_in().await;
        gone(&refresh(&rest, &first["refreshToken"]).await);
        refused(&current(&plane, &second["accessToken"]).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
        refused(&refresh(&rest, &second["refreshToken"]).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
        assert_eq!(current(&plane, &other["accessToken"]).await.0, 200, "another session goes on");
    }

    for unknown in ["vsr_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "x", "' OR true --"] {
        gone(&refresh(&rest, &json!(unknown)).await);
    }
    // A token of the other kind is none.
    let first = sign_in().await;
    refused(&current(&plane, &first["refreshToken"]).await, 401, "UNAUTHENTICATED", "TOKEN_INVALID");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_uses_at_once_two_at_most_are_answered_and_none_goes_on() {
    let plane = ControlPlane::without_worker().await;
    let rest = Rest::new(&plane.http, None);
    let token = login(&rest, ADMIN, PASSWORD, DEMO).await.1["refreshToken"].clone();
    let uses = futures::future::join_all((0..50).map(|_| refresh(&rest, &token))).await;
    assert!(uses.iter().all(|(status, _)| [200, 401].contains(status)), "{uses:?}");
    let answered: Vec<_> = uses.iter().filter(|(status, _)| *status == 200).map(|(_, tokens)| tokens).collect();
    assert!((1..=2).contains(&answered.len()), "the first, and one lost reply: {uses:?}");
    // The others were reuse: whoever holds a token of this session holds nothing.
    for tokens in answered {
        refused(&current(&plane, &tokens["accessToken"]).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
        assert_eq!(refresh(&rest, &tokens["refreshToken"]).await.0, 401);
    }
    let ended = "SELECT count(*) FROM iam.sessions WHERE ended_at IS NOT NULL";
    assert_eq!(plane.database.count(ended).await, 1, "this one and no other");
}

#[tokio::test(flavor = "multi_thread")]
async fn logout_ends_the_session_and_no_other() {
    let plane = ControlPlane::without_worker().await;
    let anonymous = Rest::new(&plane.http, None);
    let tokens = login(&anonymous, ADMIN, PASSWORD, DEMO).await.1;
    let other = login(&anonymous, ADMIN, PASSWORD, DEMO).await.1;
    let rest = Rest::new(&plane.http, tokens["accessToken"].as_str());
    assert_eq!(rest.call("POST", "/v1/auth:logout", Some(json!({}))).await, (200, json!({})));
    refused(&current(&plane, &tokens["accessToken"]).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    let again = rest.call("POST", "/v1/auth:logout", Some(json!({}))).await;
    refused(&again, 401, "UNAUTHENTICATED", "SESSION_ENDED");
    assert_eq!(refresh(&anonymous, &tokens["refreshToken"]).await.0, 401);
    assert_eq!(current(&plane, &other["accessToken"]).await.0, 200);
    let nobody = anonymous.call("POST", "/v1/auth:logout", Some(json!({}))).await;
    refused(&nobody, 401, "UNAUTHENTICATED", "CREDENTIALS_MISSING");
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_gives_tokens_for_the_other_tenant() {
    let plane = ControlPlane::without_worker().await;
    plane.tenant("acme").await;
    let tokens = login(&Rest::new(&plane.http, None), ADMIN, PASSWORD, DEMO).await.1;
    let rest = Rest::new(&plane.http, tokens["accessToken"].as_str());
    let switch = async |tenant: &str| rest.call("POST", "/v1/auth:switchTenant", Some(json!({"tenant": tenant}))).await;

    let (status, provider) = switch("provider").await;
    assert_eq!(status, 200, "{provider}");
    let (_, there) = current(&plane, &provider["accessToken"]).await;
    let (_, here) = current(&plane, &tokens["accessToken"]).await;
    assert_eq!(there["name"], here["name"], "the session goes on");
    assert_eq!((&there["tenant"], &here["tenant"]), (&provider["tenant"], &tokens["tenant"]));
    assert_eq!(
        (&there["roles"], &here["roles"]),
        (&json!(["platform_admin", "tenant_admin"]), &json!(["tenant_admin"]))
    );
    assert_eq!(refresh(&rest, &provider["refreshToken"]).await.1["tenant"], provider["tenant"]);
    assert_eq!(switch(provider["tenant"].as_str().expect("a name")).await.0, 200, "by full name");
    for elsewhere in ["acme", "nowhere", "tenants/0199a000-0000-7000-8000-000000000000"] {
        refused(&switch(elsewhere).await, 403, "PERMISSION_DENIED", "TENANT_NOT_YOURS");
    }
    assert_eq!(refused(&switch("").await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["tenant"]);
}

/// An Ed25519 key of the tests' own (RFC 8032, test 1): public half, and private half as PKCS #8.
const PUBLIC: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
const PRIVATE: &str =
    "302e020100300506032b6570042204209d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
const KID: &str = "0199a000-0000-7000-8000-00000000000a";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a part");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON")
}

fn encoded(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

/// `value` with some fields set, and those that are null taken away.
fn with(value: &Value, changes: &Value) -> Value {
    let mut changed = value.as_object().expect("an object").clone();
    for (field, value) in changes.as_object().expect("an object") {
        match value {
            Value::Null => changed.remove(field),
            value => changed.insert(field.clone(), value.clone()),
        };
    }
    changed.into()
}

fn signed(header: &Value, claims: &Value) -> String {
    let header: Header = serde_json::from_value(header.clone()).expect("a header");
    jsonwebtoken::encode(&header, claims, &EncodingKey::from_ed_der(&bytes(PRIVATE))).expect("a token")
}

#[tokio::test(flavor = "multi_thread")]
async fn no_other_token_is_taken_for_one_of_ours() {
    let plane = ControlPlane::without_worker().await;
    let rival = plane.tenant("rival").await;
    let genuine = plane.admin().await.tokens.access_token;
    let (header, claims) = (part(&genuine, 0), part(&genuine, 1));
    let ours = header["kid"].as_str().expect("a kid");
    let jwks = Rest::new(&plane.http, None).call("GET", "/.well-known/jwks.json", None).await.1;
    let x = jwks["keys"][0]["x"].as_str().expect("a key").to_owned();

    // A key whose private half the test knows becomes one of the server's, so that every claim can be varied.
    let insert = "INSERT INTO iam.signing_keys (kid, public_key, sealed_key, created_at) VALUES";
    plane.database.execute(&format!("{insert} ('{KID}', '\\x{PUBLIC}', '', now() - interval '1 day')")).await;
    let mine = with(&header, &json!({"kid": KID}));
    assert_eq!(current(&plane, &json!(signed(&mine, &claims))).await.0, 200, "else this shows nothing");

    let hs256 = |secret: &[u8]| {
        let header: Header = serde_json::from_value(with(&header, &json!({"alg": "HS256"}))).expect("a header");
        jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(secret)).expect("a token")
    };
    let [head, body, signature] = genuine.split('.').collect::<Vec<_>>().try_into().expect("three parts");
    let unsigned = |alg: &str| format!("{}.{body}.", encoded(&with(&header, &json!({"alg": alg}))));
    let other_tenant = json!({"tid": rival.tokens.tenant.trim_start_matches("tenants/")});
    let by_header = |changes: Value| signed(&with(&mine, &changes), &claims);
    let by_claims = |changes: Value| signed(&mine, &with(&claims, &changes));
    let now = chrono::Utc::now().timestamp();
    let invalid = [
        ("no token", "nonsense".to_owned()),
        ("empty parts", "..".to_owned()),
        ("two parts", format!("{head}.{body}")),
        ("four parts", format!("{genuine}.{signature}")),
        ("alg none", unsigned("none")),
        ("alg None", unsigned("None")),
        ("alg none, signed", format!("{}{signature}", unsigned("none"))),
        ("alg HS256, the public key as secret", hs256(&URL_SAFE_NO_PAD.decode(&x).expect("base64"))),
        ("alg HS256, the public key's text as secret", hs256(x.as_bytes())),
        ("other tenant, old signature", format!("{head}.{}.{signature}", encoded(&with(&claims, &other_tenant)))),
        (
            "later expiry, old signature",
            format!("{head}.{}.{signature}", encoded(&with(&claims, &json!({"exp": now + 9999})))),
        ),
        ("signature cut short", genuine[..genuine.len() - 4].to_owned()),
        ("other key under our kid", by_header(json!({"kid": ours}))),
        ("no kid", by_header(json!({"kid": null}))),
        ("unknown kid", by_header(json!({"kid": "0199a000-0000-7000-8000-00000000000b"}))),
        ("kid that is no id", by_header(json!({"kid": "../../etc/passwd"}))),
        ("typ JWT", by_header(json!({"typ": "JWT"}))),
        ("no typ", by_header(json!({"typ": null}))),
        ("other audience", by_claims(json!({"aud": "somebody"}))),
        ("no audience", by_claims(json!({"aud": null}))),
        ("other issuer", by_claims(json!({"iss": "https://elsewhere.example"}))),
        ("no issuer", by_claims(json!({"iss": null}))),
        ("no expiry", by_claims(json!({"exp": null}))),
        ("no subject", by_claims(json!({"sub": null}))),
        ("no token id", by_claims(json!({"jti": null}))),
        ("a token id that is none", by_claims(json!({"jti": "1"}))),
        ("no time of issue", by_claims(json!({"iat": null}))),
        ("no tenant", by_claims(json!({"tid": null}))),
        ("no session", by_claims(json!({"sid": null}))),
        ("a session that is no id", by_claims(json!({"sid": "x' OR true --"}))),
    ];
    for (what, token) in invalid {
        let reply = current(&plane, &json!(token)).await;
        assert_eq!(reply.1["error"]["details"][0]["reason"], "TOKEN_INVALID", "{what}: {reply:?}");
        refused(&reply, 401, "UNAUTHENTICATED", "TOKEN_INVALID");
    }
    let expired = by_claims(json!({"exp": now - 1, "iat": now - 901}));
    refused(&current(&plane, &json!(expired)).await, 401, "UNAUTHENTICATED", "TOKEN_EXPIRED");
    // Well signed, and for a tenant that the account is not in.
    refused(&current(&plane, &json!(by_claims(other_tenant))).await, 401, "UNAUTHENTICATED", "SESSION_ENDED");

    // Not a bearer token at all, or two of them.
    let rest = Rest::new(&plane.http, None);
    let get = || rest.request("GET", "/v1/sessions/current");
    for value in ["Basic YWRtaW46YWRtaW4=", "Bearer", genuine.as_str()] {
        let reply = send(get().header("authorization", value)).await;
        refused(&reply, 401, "UNAUTHENTICATED", "CREDENTIALS_MISSING");
    }
    let two = send(get().bearer_auth(&genuine).bearer_auth("other")).await;
    refused(&two, 401, "UNAUTHENTICATED", "CREDENTIALS_AMBIGUOUS");
    assert_eq!(send(get().header("authorization", format!("bearer {genuine}"))).await.0, 200, "the scheme has no case");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_keys_verify_our_tokens() {
    let plane = ControlPlane::without_worker().await;
    let tokens = plane.admin().await.tokens;
    let (status, jwks) = Rest::new(&plane.http, None).call("GET", "/.well-known/jwks.json", None).await;
    assert_eq!(status, 200);
    let header = part(&tokens.access_token, 0);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("at+jwt"), &json!("EdDSA")));
    let keys = jwks["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == header["kid"]).expect("the key that signed");
    assert_eq!((&key["kty"], &key["crv"], &key["use"]), (&json!("OKP"), &json!("Ed25519"), &json!("sig")));
    assert!(keys.iter().all(|key| key.get("d").is_none()), "no private half: {jwks}");

    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["virtualstack"]);
    let verifying = DecodingKey::from_ed_components(key["x"].as_str().expect("x")).expect("a key");
    let claims = jsonwebtoken::decode::<Value>(&tokens.access_token, &verifying, &validation).expect("ours").claims;
    let fields: Vec<_> = claims.as_object().expect("claims").keys().map(String::as_str).collect();
    assert_eq!(fields, ["aud", "exp", "iat", "iss", "jti", "sid", "sub", "tid"]);
    assert_eq!(claims["exp"].as_i64().expect("exp") - claims["iat"].as_i64().expect("iat"), 900);
    assert_eq!(format!("tenants/{}", claims["tid"].as_str().expect("tid")), tokens.tenant);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_sees_and_renames_themselves() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();

    let (_, session) = rest.call("GET", "/v1/sessions/current", None).await;
    assert_eq!((&session["tenant"], &session["roles"]), (&json!(acme.tokens.tenant), &json!(["tenant_admin"])));
    assert_eq!(session["credential"], "access_token");
    assert!(session["name"].as_str().is_some_and(|name| name.starts_with("sessions/")), "{session}");
    let permissions = session["permissions"].as_array().expect("permissions");
    assert!(permissions.contains(&json!("vm:create")), "{session}");
    assert!(
        !permissions.iter().any(|code| code.as_str().is_some_and(|code| code.starts_with("platform:"))),
        "{session}"
    );
    for time in ["createTime", "expireTime"] {
        assert!(session[time].as_str().is_some_and(|time| time.ends_with('Z')), "{session}");
    }

    let (_, me) = rest.call("GET", "/v1/users/me", None).await;
    assert_eq!(me["name"], session["user"]);
    assert_eq!((&me["email"], &me["state"]), (&json!("admin@acme.example.com"), &json!("ACTIVE")));
    let roles = me["roles"].as_array().expect("a list");
    assert!(roles.len() == 1 && roles[0].as_str().is_some_and(|role| role.starts_with("roles/")), "{me}");

    let patch = async |query: &str, body: Value| rest.call("PATCH", &format!("/v1/users/me{query}"), Some(body)).await;
    let (status, renamed) = patch("", json!({"displayName": "Ada Lovelace 🚀"})).await;
    assert_eq!((status, &renamed["displayName"]), (200, &json!("Ada Lovelace 🚀")), "{renamed}");
    assert_eq!(rest.call("GET", "/v1/users/me", None).await.1["displayName"], "Ada Lovelace 🚀");
    let (_, other) = plane.admin().await.rest().call("GET", "/v1/users/me", None).await;
    assert_eq!(other["displayName"], "Administrator", "nobody else's name");

    for name in ["", "a\u{7}b", "a\nb", &"x".repeat(201)] {
        let reply = patch("?updateMask=displayName", json!({"displayName": name})).await;
        assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["user.displayName"], "{name:?}");
    }
    let reply = patch("?updateMask=email", json!({"displayName": "x", "email": "new@example.com"})).await;
    assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["updateMask"]);
    // What is output only is not looked at.
    let (status, same) =
        patch("", json!({"displayName": "Ada", "email": "new@example.com", "roles": ["platform_admin"]})).await;
    assert_eq!((status, &same["email"], &same["roles"]), (200, &me["email"], &me["roles"]), "{same}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_make_tenants_and_members_see_their_own() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.operator().await.rest();
    let create = async |rest: &Rest, slug: &str, email: &str| {
        let body = json!({"tenant": {"slug": slug, "displayName": "A Tenant"}, "adminEmail": email, "adminPassword": PASSWORD});
        rest.call("POST", "/v1/tenants", Some(body)).await
    };
    let (status, acme) = create(&rest, "acme", "ada@acme.example.com").await;
    assert_eq!((status, &acme["slug"], &acme["state"]), (200, &json!("acme"), &json!("ACTIVE")), "{acme}");
    let name = acme["name"].as_str().expect("a name");
    assert_eq!(rest.call("GET", &format!("/v1/{name}"), None).await, (200, acme.clone()));
    assert_eq!(
        rest.call("GET", "/v1/tenants/acme", None).await,
        (200, acme.clone()),
        "by slug, and the reply has the id"
    );

    refused(&create(&rest, "acme", "b@example.com").await, 409, "ALREADY_EXISTS", "TENANT_SLUG_TAKEN");
    let wrong = [
        "abcdefab-1234-4234-8234-abcdefabcdef",
        "Acme",
        "-acme",
        "acme-",
        "a",
        "1acme",
        "ac me",
        "acme\n",
        "",
        &"a".repeat(41),
    ];
    for slug in wrong {
        let fields = refused(&create(&rest, slug, "b@example.com").await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        assert!(fields.iter().all(|field| field == "tenant.slug") && !fields.is_empty(), "{slug:?}: {fields:?}");
    }
    let body = json!({"tenant": {"slug": "beta"}, "adminEmail": "nobody", "adminPassword": "short"});
    let fields =
        refused(&rest.call("POST", "/v1/tenants", Some(body)).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
    assert_eq!(fields, ["tenant.displayName", "adminEmail", "adminPassword"], "all of them at once");
    let none = rest.call("POST", "/v1/tenants", Some(json!({}))).await;
    assert!(refused(&none, 400, "INVALID_ARGUMENT", "INVALID_FIELDS").contains(&"tenant".to_owned()));

    let slugs = async |rest: &Rest| {
        let (_, list) = rest.call("GET", "/v1/tenants", None).await;
        let tenants = list["tenants"].as_array().expect("tenants").clone();
        tenants.iter().map(|tenant| tenant["slug"].as_str().expect("a slug").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(slugs(&rest).await, ["acme", "demo", "provider"], "newest first");
    let (_, page) = rest.call("GET", "/v1/tenants?pageSize=2", None).await;
    let token = page["nextPageToken"].as_str().expect("a token");
    let (_, rest_of_them) = rest.call("GET", &format!("/v1/tenants?pageSize=2&pageToken={token}"), None).await;
    assert_eq!((&rest_of_them["tenants"][0]["slug"], &rest_of_them["nextPageToken"]), (&json!("provider"), &json!("")));

    // A tenant's admin is no operator, nor is the operator who has entered another tenant.
    let ada = plane.login("ada@acme.example.com", "acme").await.rest();
    let elsewhere = plane.admin().await.rest();
    for rest in [&ada, &elsewhere] {
        let reply = create(rest, "mine", "b@example.com").await;
        refused(&reply, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }
    assert_eq!(slugs(&ada).await, ["acme"]);
    assert_eq!(slugs(&elsewhere).await, ["demo", "provider"], "those that the account can enter");
    assert_eq!(ada.call("GET", "/v1/tenants/acme", None).await, (200, acme.clone()));
    for foreign in ["demo", "provider", "nowhere", "0199a000-0000-7000-8000-000000000000"] {
        let reply = ada.call("GET", &format!("/v1/tenants/{foreign}"), None).await;
        refused(&reply, 404, "NOT_FOUND", "TENANT_NOT_FOUND");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_holds_no_secret_in_clear() {
    let plane = ControlPlane::with_real_hashes().await;
    let rest = Rest::new(&plane.http, None);
    let tokens = login(&rest, ADMIN, PASSWORD, DEMO).await.1;
    let next = refresh(&rest, &tokens["refreshToken"]).await.1;
    login(&rest, ADMIN, "a wrong password", DEMO).await;
    refresh(&rest, &json!("vsr_of-somebody")).await;
    plane.tenant("acme").await;

    let text = |value: &Value| value.as_str().expect("a token").to_owned();
    let mut secrets = vec![PASSWORD.to_owned(), "a wrong password".to_owned(), "vsr_of-somebody".to_owned()];
    for tokens in [&tokens, &next] {
        let (access, refresh) = (text(&tokens["accessToken"]), text(&tokens["refreshToken"]));
        secrets.extend([access.clone(), access.rsplit('.').next().expect("a signature").to_owned()]);
        secrets.push(refresh.strip_prefix("vsr_").expect("a prefix").to_owned());
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut needles = Vec::new();
    for secret in &secrets {
        needles.push(secret.clone());
        needles.push(hex(secret.as_bytes()));
        needles.extend(URL_SAFE_NO_PAD.decode(secret).ok().map(|raw| hex(&raw)));
    }
    // A whole row as text has every column in it: text and JSON as they are, bytes in hex.
    let found = "DO $$ DECLARE t regclass; hits bigint; BEGIN \
        FOR t IN SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p') \
            AND n.nspname NOT IN ('pg_catalog', 'information_schema') LOOP \
            EXECUTE format('SELECT count(*) FROM %s r WHERE position(lower(%L) in lower(r::text)) > 0', t, current_setting('test.needle')) INTO hits; \
            INSERT INTO public.hits SELECT t::text, hits WHERE hits > 0; \
        END LOOP; END $$";
    plane.database.execute("CREATE TABLE public.hits (name text, hits bigint)").await;
    let digest =
        format!("SELECT set_config('test.needle', encode(sha256('{}'), 'hex'), false);", text(&tokens["refreshToken"]));
    plane.database.execute(&format!("{digest} {found}")).await;
    let hits = "SELECT count(*) FROM public.hits";
    assert_eq!(plane.database.count(hits).await, 1, "the digest is found, so the search works");
    plane.database.execute("DELETE FROM public.hits").await;
    for needle in needles {
        plane.database.execute(&format!("SET test.needle = '{needle}'; {found}")).await;
        assert_eq!(plane.database.count(hits).await, 0, "{needle} is in the database");
    }
    let hashes = "SELECT count(*) FROM iam.users WHERE password_hash !~ '^[$]argon2id[$]v=19[$]m=19456,t=2,p=1[$]'";
    assert_eq!(plane.database.count(hashes).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_no_database_can_keep_is_nobodys() {
    let plane = ControlPlane::without_worker().await;
    let reply = login(&Rest::new(&plane.http, None), "ad\0min@example.com", PASSWORD, DEMO).await;
    refused(&reply, 401, "UNAUTHENTICATED", "CREDENTIALS_WRONG");
}
