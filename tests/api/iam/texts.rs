//! Names, addresses and passwords, as people write them.

use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Value, json};
use virtualstack_proto::DESCRIPTOR_POOL;

use crate::api::{Reply, refused, token_of};
use crate::support::{ControlPlane, PASSWORD, Rest};
use crate::tenancy::calls::texts;

#[track_caller]
fn ok(reply: Reply) -> Value {
    assert_eq!(reply.0, 200, "{}", reply.1);
    reply.1
}

/// Fields by which nobody is named anew: they are looked up, and an address that is none finds nobody.
const LOOKED_UP: [&str; 5] = [
    "virtualstack.iam.v1.LoginRequest.email",
    "virtualstack.iam.v1.LoginRequest.password",
    "virtualstack.iam.v1.RequestPasswordResetRequest.email",
    "virtualstack.iam.v1.ChangePasswordRequest.old_password",
    // That of an account that is there, or a new one's.
    "virtualstack.iam.v1.AcceptInvitationRequest.password",
];

/// Every name and address that a request may bring says what it is, or has a rule that takes ASCII only.
#[test]
fn names_and_addresses_say_what_they_are() {
    fn walk(message: &MessageDescriptor, seen: &mut Vec<String>, checked: &mut usize) {
        if seen.contains(&message.full_name().to_owned()) {
            return;
        }
        seen.push(message.full_name().to_owned());
        let extension = |name: &str| DESCRIPTOR_POOL.get_extension_by_name(name).expect("an option");
        for field in message.fields() {
            if let Kind::Message(inner) = field.kind() {
                walk(&inner, seen, checked);
            }
            let options = field.options();
            let is_name = ["display_name", "email", "password"].iter().any(|end| field.name().ends_with(end));
            let behaviours = options.get_extension(&extension("google.api.field_behavior"));
            let output =
                behaviours.as_list().is_some_and(|list| list.iter().any(|item| item.as_enum_number() == Some(3)));
            if !is_name || output || LOOKED_UP.contains(&field.full_name()) {
                continue;
            }
            let text = options.get_extension(&extension("virtualstack.options.v1.text")).as_enum_number();
            let rules = options.get_extension(&extension("buf.validate.field"));
            let rules = rules.as_message().map(|rules| rules.to_string()).unwrap_or_default();
            let kinds = [("display_name", 1), ("email", 2), ("password", 3)];
            let expected = kinds.iter().find(|(end, _)| field.name().ends_with(end)).map(|(_, kind)| *kind);
            assert!(
                text == expected || rules.contains("a-z0-9"),
                "{}: say its virtualstack.options.v1.text",
                field.full_name()
            );
            *checked += 1;
        }
    }
    let (mut seen, mut checked) = (Vec::new(), 0);
    for service in DESCRIPTOR_POOL.services().filter(|service| service.package_name().starts_with("virtualstack.")) {
        for method in service.methods() {
            walk(&method.input(), &mut seen, &mut checked);
        }
    }
    assert!(checked >= 10, "{checked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_show_something_and_hide_nothing() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let (rest, operator) = (acme.rest(), plane.operator().await.rest());
    let role = ok(rest.call("POST", "/v1/roles", Some(json!({"displayName": "r"}))).await);
    let role = role["name"].as_str().expect("a name").to_owned();
    let invite = json!({"email": "guest@example.com", "role": "roles/viewer"});
    ok(rest.call("POST", "/v1/invitations", Some(invite)).await);
    let token = token_of(&plane.next_mail_to("guest@example.com").await);
    let nobody = Rest::new(&plane.http, None);
    for (number, name) in ["\u{200b}", " \u{3000}", "Ada\u{202e}", "\u{3164}", "A\u{ad}da"].into_iter().enumerate() {
        let tenant = json!({"slug": format!("t{number}"), "displayName": name});
        let admin = json!({"tenant": {"slug": format!("t{number}"), "displayName": "T"}, "adminEmail": "a@example.com", "adminDisplayName": name});
        let user = json!({"email": "u@example.com", "displayName": name});
        let key = json!({"displayName": name, "permissions": ["vm:read"]});
        let accept = json!({"token": token, "password": PASSWORD, "displayName": name});
        let calls = [
            (&rest, "POST", "/v1/roles".to_owned(), json!({"displayName": name}), "role.displayName"),
            (&rest, "PATCH", format!("/v1/{role}"), json!({"displayName": name}), "role.displayName"),
            (&rest, "POST", "/v1/users".to_owned(), user, "user.displayName"),
            (&rest, "PATCH", "/v1/users/me".to_owned(), json!({"displayName": name}), "user.displayName"),
            (&rest, "POST", "/v1/apiKeys".to_owned(), key, "apiKey.displayName"),
            (&rest, "PATCH", "/v1/tenants/current".to_owned(), json!({"displayName": name}), "tenant.displayName"),
            (
                &operator,
                "POST",
                "/v1/tenants".to_owned(),
                json!({"tenant": tenant, "adminEmail": "a@example.com"}),
                "tenant.displayName",
            ),
            (&operator, "POST", "/v1/tenants".to_owned(), admin, "adminDisplayName"),
            (&nobody, "POST", "/v1/invitations:accept".to_owned(), accept, "displayName"),
        ];
        for (rest, method, path, body, field) in calls {
            let reply = rest.call(method, &path, Some(body)).await;
            assert_eq!(refused(&reply, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), [field], "{method} {path} {name:?}");
        }
    }
    for name in ["می‌خواهم", "👩‍💻", "שלום", "Ünï"] {
        ok(rest.call("POST", "/v1/roles", Some(json!({"displayName": name}))).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_roles_are_unique_as_people_read_them() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.tenant("acme").await.rest();
    let create = async |name: &str| rest.call("POST", "/v1/roles", Some(json!({"displayName": name}))).await;
    let taken = |reply: &Reply| {
        refused(reply, 409, "ALREADY_EXISTS", "ROLE_NAME_TAKEN");
    };
    let role = ok(create("Straße Ａ").await);
    for same in ["Straße Ａ", " strasse a ", "STRASSE A"] {
        taken(&create(same).await);
    }
    for system in ["Viewer", " viewer", "ＶＩＥＷＥＲ", "Platform_Admin"] {
        taken(&create(system).await);
    }
    let other = ok(create("other").await);
    let rename = async |role: &Value, name: &str| {
        let path = format!("/v1/{}?updateMask=displayName", role["name"].as_str().expect("a name"));
        rest.call("PATCH", &path, Some(json!({"displayName": name}))).await
    };
    taken(&rename(&other, "STRASSE a").await);
    ok(rename(&role, "strasse A").await);

    // Roles of before keep their names, and the younger of two that are the same now cannot be taken for the older.
    plane
        .database
        .execute(
            "INSERT INTO iam.tenant_roles (tenant_id, id, display_name, created_at) \
             SELECT t.id, gen_random_uuid(), n.name, now() + n.age FROM iam.tenants t, \
                (VALUES ('Old', interval '1 s'), ('OLD', interval '2 s'), ('STRASSE A', interval '3 s')) n (name, age) WHERE slug = 'acme'",
        )
        .await;
    for _ in 0..2 {
        virtualstack_server::update_permissions(&plane.store).await.expect("started");
    }
    let keys = "SELECT display_name || ' ' || coalesce(replace(name_key, id::text, 'id'), '-') FROM iam.tenant_roles \
        WHERE tenant_id = (SELECT id FROM iam.tenants WHERE slug = 'acme') AND NOT system ORDER BY created_at";
    assert_eq!(
        texts(&plane.database, keys).await,
        ["strasse A strasse a", "other other", "Old old", "OLD old~id", "STRASSE A strasse a~id"]
    );
    taken(&create("oLd").await);
    let listed = ok(rest.call("GET", "/v1/roles?filter=displayName=OLD", None).await);
    let old = listed["roles"]
        .as_array()
        .expect("roles")
        .iter()
        .find(|role| role["displayName"] == "OLD")
        .expect("the role")
        .clone();
    let path = format!("/v1/{}?updateMask=description", old["name"].as_str().expect("a name"));
    ok(rest.call("PATCH", &path, Some(json!({"description": "kept"}))).await);
    ok(rename(&old, "Older").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_taken_from_all_over_the_world() {
    let plane = ControlPlane::start().await;
    let rest = plane.tenant("acme").await.rest();
    let nobody = Rest::new(&plane.http, None);
    let invite = async |email: &str| {
        rest.call("POST", "/v1/invitations", Some(json!({"email": email, "role": "roles/viewer"}))).await
    };
    for (typed, kept) in [
        (" Ada@Example.COM ", "ada@example.com"),
        ("ｂｏｂ＠example.com", "bob@example.com"),
        ("JOSE\u{301}@BÜCHER.example", "josé@xn--bcher-kva.example"),
        ("用户@例え.jp", "用户@xn--r8jz45g.jp"),
    ] {
        let invitation = ok(invite(typed).await);
        assert_eq!(invitation["email"], kept);
        let token = token_of(&plane.next_mail_to(kept).await);
        ok(nobody.call("POST", "/v1/invitations:accept", Some(json!({"token": token, "password": PASSWORD}))).await);
        for email in [typed, kept] {
            ok(nobody.call("POST", "/v1/auth:login", Some(json!({"email": email, "password": PASSWORD}))).await);
        }
        let again = rest.call("POST", "/v1/users", Some(json!({"email": typed, "displayName": "x"}))).await;
        refused(&again, 409, "ALREADY_EXISTS", "USER_EXISTS");
    }
    for email in ["ada", "ada@", "a da@example.com", "ada\u{200b}@example.com", "Ada <ada@example.com>", "a@b..c"] {
        let fields = refused(&invite(email).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        assert_eq!(fields, ["invitation.email"], "{email}");
        let user = rest.call("POST", "/v1/users", Some(json!({"email": email, "displayName": "x"}))).await;
        assert_eq!(refused(&user, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["user.email"], "{email}");
    }
}

/// Keyboards make the same letters of different characters: a password is the same by all of them.
#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_the_same_on_every_keyboard() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let (composed, apart) = ("caf\u{e9} horse battery", "cafe\u{301} horse battery");
    let nobody = Rest::new(&plane.http, None);
    let login = async |email: &str, password: &str| {
        nobody.call("POST", "/v1/auth:login", Some(json!({"email": email, "password": password}))).await
    };
    for (number, password) in [composed, apart].into_iter().enumerate() {
        let email = format!("u{number}@example.com");
        let user = json!({"email": email, "displayName": "U", "password": password});
        ok(acme.rest().call("POST", "/v1/users", Some(user)).await);
        for typed in [composed, apart] {
            ok(login(&email, typed).await);
        }
        assert_eq!(login(&email, "cafe horse battery").await.0, 401);
    }
    // Lengths are those of what is hashed: six letters are not twelve, and seventy syllables of three parts are seventy.
    let change = async |old: &str, new: &str| {
        let body = json!({"oldPassword": old, "newPassword": new});
        acme.rest().call("POST", "/v1/users/me:changePassword", Some(body)).await
    };
    let six = "e\u{301}a\u{300}o\u{308}u\u{308}i\u{302}n\u{303}";
    assert_eq!(refused(&change(PASSWORD, six).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["newPassword"]);
    let syllables: String = (0..70).filter_map(|n| char::from_u32(0xac01 + n * 151)).collect();
    let parts: String = unicode_parts(&syllables);
    assert!(parts.chars().count() > 128);
    ok(change(PASSWORD, &parts).await);
    ok(login("admin@acme.example.com", &syllables).await);
}

/// Hangul syllables as their two or three letters.
fn unicode_parts(text: &str) -> String {
    let parts = |c: char| {
        let index = u32::from(c) - 0xac00;
        let letters = [0x1100 + index / 588, 0x1161 + index % 588 / 28, 0x11a7 + index % 28];
        letters.into_iter().filter(|letter| *letter != 0x11a7).filter_map(char::from_u32).collect::<String>()
    };
    text.chars().map(parts).collect()
}
