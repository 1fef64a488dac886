//! Invitations: from the mail into the tenant.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tonic::Code;
use virtualstack_model::id::{TenantId, UserId};
use virtualstack_proto::virtualstack::iam::v1 as proto;
use virtualstack_proto::virtualstack::iam::v1::invitation_service_client::InvitationServiceClient;
use virtualstack_store::SystemPurpose;
use virtualstack_store::iam::invitations::{self, InvitationGrant, Invite};
use virtualstack_worker::adapters::mail::{Fault, Mailer, Message};
use virtualstack_worker::{NoProbe, Point};

use crate::api::{Reply, refused, rows_with, token_of};
use crate::support::{ControlPlane, Crash, CrashProbe, PASSWORD, Rest, Session, reason, system};

const NEW: &str = "new.person@example.com";

async fn invite(session: &Session, email: &str, role: &str) -> Value {
    let (status, invitation) = try_invite(session, json!({"email": email, "role": role})).await;
    assert_eq!(status, 200, "{invitation}");
    invitation
}

async fn try_invite(session: &Session, invitation: Value) -> Reply {
    session.rest().call("POST", "/v1/invitations", Some(invitation)).await
}

/// Invites, and reads the mail.
async fn invited(plane: &ControlPlane, session: &Session, email: &str, role: &str) -> (Value, String) {
    let invitation = invite(session, email, role).await;
    (invitation, token_of(&plane.next_mail_to(email).await))
}

async fn verify(plane: &ControlPlane, token: &str) -> Reply {
    let body = json!({"token": token});
    Rest::new(&plane.http, None).call("POST", "/v1/invitations:verify", Some(body)).await
}

async fn accept(plane: &ControlPlane, token: &str, password: &str) -> Reply {
    let body = json!({"token": token, "password": password, "displayName": "New Person"});
    Rest::new(&plane.http, None).call("POST", "/v1/invitations:accept", Some(body)).await
}

fn time(json: &Value) -> DateTime<Utc> {
    json.as_str().expect("a time").parse().expect("RFC 3339")
}

fn id(name: &str) -> &str {
    name.rsplit('/').next().expect("an id")
}

/// What a tenant has, to see that nothing of it changes.
async fn all_of(plane: &ControlPlane, tenant: &str) -> Vec<i64> {
    let mut digests = Vec::new();
    for (table, key) in [
        ("iam.tenants", "id"),
        ("iam.memberships", "tenant_id"),
        ("iam.user_tenant_roles", "tenant_id"),
        ("iam.invitations", "tenant_id"),
        ("audit.logs", "tenant_id"),
        ("audit.changes", "tenant_id"),
        ("background_jobs.jobs", "group_key"),
    ] {
        let rows = format!(
            "SELECT coalesce(hashtext(string_agg(t::text, chr(10) ORDER BY t::text)), 0)::bigint FROM {table} t \
             WHERE {key}::text = '{}'",
            id(tenant)
        );
        digests.push(plane.database.count(&rows).await);
    }
    digests
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_a_way_in() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let (invitation, token) = invited(&plane, &acme, "New.Person@Example.COM", "roles/user").await;
    let name = invitation["name"].as_str().expect("a name");
    assert_eq!((&invitation["email"], &invitation["state"]), (&json!(NEW), &json!("PENDING")));
    assert!(invitation["role"].as_str().is_some_and(|role| role.len() == "roles/".len() + 36), "{invitation}");
    assert!(invitation["inviter"].as_str().is_some_and(|user| user.starts_with("users/")), "{invitation}");
    let term = time(&invitation["expireTime"]) - Utc::now();
    assert!((TimeDelta::minutes(7 * 24 * 60 - 1)..TimeDelta::days(7)).contains(&term), "{term}");

    // While it is open, it is that one, whatever is asked for, and no second mail goes out.
    plane.mailed().await;
    let (_, sent) = rest.call("GET", &format!("/v1/{name}"), None).await;
    assert!(time(&sent["sendTime"]) <= Utc::now(), "{sent}");
    assert_eq!(invite(&acme, "NEW.person@example.com", "roles/viewer").await, sent);
    plane.mailed().await;
    let mails = plane.mail_to(NEW);
    assert_eq!(mails.len(), 1, "{mails:?}");
    assert!(mails[0].contains("“admin@ acme. example. com” invites you to “acme”."), "{}", mails[0]);
    let (_, list) = rest.call("GET", "/v1/invitations", None).await;
    assert_eq!(list, json!({"invitations": [sent], "nextPageToken": ""}));

    let (status, told) = verify(&plane, &token).await;
    assert_eq!(status, 200, "{told}");
    assert_eq!((&told["email"], &told["tenant"]), (&json!(NEW), &json!(acme.tokens.tenant)));
    assert_eq!((&told["tenantDisplayName"], &told["accountExists"]), (&json!("acme"), &json!(false)));
    assert_eq!(told["expireTime"], invitation["expireTime"]);
    for weak in ["short", "password1234", "newperson2026"] {
        let answer = accept(&plane, &token, weak).await;
        assert_eq!(refused(&answer, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["password"], "{weak}");
    }
    let (status, joined) = accept(&plane, &token, PASSWORD).await;
    assert_eq!(status, 200, "{joined}");
    assert_eq!((&joined["email"], &joined["tenant"]), (&json!(NEW), &json!(acme.tokens.tenant)));

    let person = plane.login(NEW, "acme").await;
    let (_, me) = person.rest().call("GET", "/v1/users/me", None).await;
    assert_eq!(
        (&me["name"], &me["displayName"], &me["state"]),
        (&joined["user"], &json!("New Person"), &json!("ACTIVE"))
    );
    assert_eq!(me["roles"], json!([invitation["role"]]));
    let answer = try_invite(&person, json!({"email": "x@example.com", "role": "roles/user"})).await;
    refused(&answer, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");

    // Once, and then never again.
    for answer in [verify(&plane, &token).await, accept(&plane, &token, PASSWORD).await] {
        refused(&answer, 400, "FAILED_PRECONDITION", "INVITATION_INVALID");
    }
    let (_, accepted) = rest.call("GET", &format!("/v1/{name}"), None).await;
    assert_eq!(accepted["state"], "ACCEPTED");
    assert!(time(&accepted["acceptTime"]) <= Utc::now());
    for verb in ["revoke", "resend"] {
        let answer = rest.call("POST", &format!("/v1/{name}:{verb}"), Some(json!({}))).await;
        refused(&answer, 400, "FAILED_PRECONDITION", "INVITATION_ACCEPTED");
    }
    let answer = try_invite(&acme, json!({"email": NEW, "role": "roles/user"})).await;
    refused(&answer, 409, "ALREADY_EXISTS", "USER_EXISTS");

    let audited = format!(
        "SELECT count(*) FROM audit.logs WHERE action LIKE '%.AcceptInvitation' AND tenant_id = '{}' AND actor = {} \
         AND resource = '{name}' AND result = 'OK'",
        id(&acme.tokens.tenant),
        joined["user"].to_string().replace('"', "'"),
    );
    assert_eq!(plane.database.count(&audited).await, 1);
    assert!(rows_with(&plane, NEW).await > 0, "the search finds what is there");
    assert_eq!(rows_with(&plane, &token).await, 0, "no token is kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_over_grpc() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let mut client = InvitationServiceClient::new(acme.channel.clone());
    let request_id = uuid::Uuid::new_v4().to_string();
    let ends = prost_types::Timestamp { seconds: (Utc::now() + TimeDelta::days(30)).timestamp(), nanos: 0 };
    let desired = proto::Invitation {
        email: NEW.to_owned(),
        role: "roles/viewer".to_owned(),
        expire_time: Some(ends),
        ..Default::default()
    };
    let create = proto::CreateInvitationRequest { invitation: Some(desired), request_id, ..Default::default() };
    let made = client.create_invitation(acme.request(create.clone())).await.expect("an invitation").into_inner();
    assert_eq!(made.expire_time, Some(ends));
    let token = token_of(&plane.next_mail_to(NEW).await);
    plane.mailed().await;
    let revoke = proto::RevokeInvitationRequest { name: made.name.clone() };
    let revoked = client.revoke_invitation(acme.request(revoke.clone())).await.expect("revoked").into_inner();
    assert_eq!(revoked.state(), proto::invitation::State::Revoked);
    assert_eq!(client.revoke_invitation(acme.request(revoke)).await.expect("again").into_inner(), revoked);
    let refused = client.verify_invitation(proto::VerifyInvitationRequest { token }).await.expect_err("revoked");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "INVITATION_INVALID"));
    let resend = proto::ResendInvitationRequest { name: made.name.clone() };
    let refused = client.resend_invitation(acme.request(resend)).await.expect_err("revoked");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "INVITATION_REVOKED"));

    // A repeat of the call gets what the first one made, as it is now; another call makes another.
    let again = client.create_invitation(acme.request(create.clone())).await.expect("the same").into_inner();
    assert_eq!(again, revoked);
    let fresh = proto::CreateInvitationRequest { request_id: String::new(), ..create.clone() };
    let fresh = client.create_invitation(acme.request(fresh)).await.expect("another").into_inner();
    assert_ne!(fresh.name, made.name);
    let misused = proto::CreateInvitationRequest {
        invitation: create.invitation.clone().map(|desired| proto::Invitation { expire_time: None, ..desired }),
        ..create
    };
    let refused = client.create_invitation(acme.request(misused)).await.expect_err("another body");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let token = token_of(&plane.next_mail_to(NEW).await);
    let accept = proto::AcceptInvitationRequest { token, password: PASSWORD.to_owned(), display_name: String::new() };
    let joined = client.accept_invitation(accept).await.expect("accepted").into_inner();
    assert_eq!((joined.tenant.as_str(), joined.email.as_str()), (acme.tokens.tenant.as_str(), NEW));
    plane.login(NEW, "acme").await;

    for number in 0..3 {
        invite(&acme, &format!("p{number}@example.com"), "roles/viewer").await;
    }
    let page = async |page_token: String| {
        let request = proto::ListInvitationsRequest { page_size: 2, page_token, ..Default::default() };
        InvitationServiceClient::new(acme.channel.clone())
            .list_invitations(acme.request(request))
            .await
            .expect("a page")
            .into_inner()
    };
    let (first, mut emails) = (page(String::new()).await, Vec::new());
    let second = page(first.next_page_token).await;
    let third = page(second.next_page_token).await;
    assert_eq!(third.next_page_token, "");
    for page in [first.invitations, second.invitations, third.invitations] {
        emails.extend(page.into_iter().map(|one| one.email));
    }
    assert_eq!(emails, ["p2@example.com", "p1@example.com", "p0@example.com", NEW, NEW], "newest first");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_invites_whom_or_as_they_may_not() {
    let plane = ControlPlane::without_worker().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let days = |days| (Utc::now() + TimeDelta::days(days)).to_rfc3339();
    for (body, field) in [
        (json!({"email": "nobody", "role": "roles/user"}), "invitation.email"),
        (json!({"email": NEW, "role": "user"}), "invitation.role"),
        (json!({"email": NEW}), "invitation.role"),
        (json!({"email": NEW, "role": "roles/user", "expireTime": days(-1)}), "invitation.expireTime"),
        (json!({"email": NEW, "role": "roles/user", "expireTime": days(91)}), "invitation.expireTime"),
    ] {
        let fields = refused(&try_invite(&acme, body.clone()).await, 400, "INVALID_ARGUMENT", "INVALID_FIELDS");
        assert_eq!(fields, [field], "{body}");
    }
    let theirs = invite(&rival, NEW, "roles/user").await;
    let nowhere = format!("roles/{}", uuid::Uuid::now_v7());
    for role in [theirs["role"].as_str().expect("a role"), &nowhere, "roles/platform_admin", "roles/nothing"] {
        let answer = try_invite(&acme, json!({"email": NEW, "role": role})).await;
        refused(&answer, 404, "NOT_FOUND", "ROLE_NOT_FOUND");
    }
    let answer = try_invite(&acme, json!({"email": "ADMIN@acme.example.com", "role": "roles/user"})).await;
    refused(&answer, 409, "ALREADY_EXISTS", "USER_EXISTS");
    let name = theirs["name"].as_str().expect("a name");
    for (method, path) in [("GET", ""), ("POST", ":revoke"), ("POST", ":resend")] {
        let body = (method == "POST").then(|| json!({}));
        let answer = acme.rest().call(method, &format!("/v1/{name}{path}"), body).await;
        refused(&answer, 404, "NOT_FOUND", "INVITATION_NOT_FOUND");
    }

    // Nobody gives what they do not hold, and only who may give roles gives any.
    let expired = invite(&acme, NEW, "roles/tenant_admin").await;
    let limit = async |codes: &str| {
        let role = format!(
            "DELETE FROM iam.tenant_role_permissions rp USING iam.user_tenant_roles ur, iam.memberships m \
             WHERE rp.role_id = ur.role_id AND ur.membership_id = m.id AND m.email = 'admin@acme.example.com' \
             AND rp.permission NOT IN ({codes}); \
             UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE slug = 'acme'"
        );
        plane.database.execute(&role).await;
    };
    limit("'invitation:create', 'invitation:update', 'role:assign', 'vm:read', 'vm:create'").await;
    let resend = format!("/v1/{}:resend", expired["name"].as_str().expect("a name"));
    limit("'invitation:create', 'invitation:update', 'role:assign', 'vm:read'").await;
    let answer = try_invite(&acme, json!({"email": "x@example.com", "role": "roles/user"})).await;
    refused(&answer, 403, "PERMISSION_DENIED", "GRANT_EXCEEDS_OWN");
    limit("'invitation:create', 'invitation:update', 'vm:read'").await;
    let answer = try_invite(&acme, json!({"email": "x@example.com", "role": "roles/viewer"})).await;
    refused(&answer, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    let answer = acme.rest().call("POST", &resend, Some(json!({}))).await;
    refused(&answer, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    limit("'vm:read'").await;
    for (method, path) in [("GET", "/v1/invitations"), ("POST", "/v1/invitations"), ("POST", resend.as_str())] {
        let body = (method == "POST").then(|| json!({}));
        refused(&acme.rest().call(method, path, body).await, 403, "PERMISSION_DENIED", "PERMISSION_MISSING");
    }
    let made = "SELECT count(*) FROM iam.invitations";
    assert_eq!(plane.database.count(made).await, 2, "the rival's one and the first one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_good_says_nothing() {
    let plane = ControlPlane::start().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let rest = acme.rest();
    let unknown = verify(&plane, "vsi_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").await;
    refused(&unknown, 400, "FAILED_PRECONDITION", "INVITATION_INVALID");
    let worthless = async |token: &str| {
        assert_eq!(verify(&plane, token).await, unknown);
        assert_eq!(accept(&plane, token, PASSWORD).await, unknown);
    };
    worthless("' OR true --").await;
    let (invitation, first) = invited(&plane, &acme, NEW, "roles/viewer").await;
    let path = format!("/v1/{}", invitation["name"].as_str().expect("a name"));
    let good = async |token: &str| assert_eq!(verify(&plane, token).await.0, 200);
    good(&first).await;

    // Its time runs out: it is told as expired, and can be sent again with a new term and another token.
    plane.mailed().await;
    plane.database.execute("UPDATE iam.invitations SET expires_at = now() - interval '1 second'").await;
    worthless(&first).await;
    assert_eq!(rest.call("GET", &path, None).await.1["state"], "EXPIRED");
    // Lists go by that state too.
    invite(&acme, "other@example.com", "roles/viewer").await;
    let list = async |query: &str| rest.call("GET", &format!("/v1/invitations?showTotal=true&{query}"), None).await.1;
    for (query, total, emails) in [
        ("filter=state = EXPIRED", 1, vec![NEW]),
        ("filter=state = PENDING", 1, vec!["other@example.com"]),
        ("filter=state != REVOKED&orderBy=state, email&pageSize=1", 2, vec![NEW]),
        ("filter=\"new.person\" expireTime > \"2100-01-01T00:00:00Z\"", 0, vec![]),
        ("orderBy=expireTime desc", 2, vec!["other@example.com", NEW]),
    ] {
        let list = list(query).await;
        assert_eq!(list["totalSize"], total, "{query} {list}");
        let invitations = list["invitations"].as_array().expect("invitations").iter();
        assert_eq!(invitations.map(|one| &one["email"]).collect::<Vec<_>>(), emails, "{query}");
    }
    let unknown = rest.call("GET", "/v1/invitations?filter=digest:*", None).await;
    assert_eq!(refused(&unknown, 400, "INVALID_ARGUMENT", "INVALID_FIELDS"), ["filter"]);
    let (status, resent) = rest.call("POST", &format!("{path}:resend"), Some(json!({}))).await;
    assert_eq!((status, &resent["state"]), (200, &json!("PENDING")), "{resent}");
    assert!(time(&resent["expireTime"]) > Utc::now() + TimeDelta::days(6));
    let second = token_of(&plane.next_mail_to(NEW).await);
    good(&second).await;
    worthless(&first).await;
    // The old token ends with the call, not with the next mail.
    plane.mailed().await;
    plane.database.execute("UPDATE background_jobs.jobs SET queue = 'nobody'").await;
    plane
        .database
        .execute(
            "CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN NEW.available_at = 'infinity'; RETURN NEW; END $$; \
             CREATE TRIGGER hold BEFORE INSERT ON background_jobs.jobs FOR EACH ROW EXECUTE FUNCTION public.hold()",
        )
        .await;
    assert_eq!(rest.call("POST", &format!("{path}:resend"), Some(json!({}))).await.0, 200);
    worthless(&second).await;
    plane
        .database
        .execute("DROP TRIGGER hold ON background_jobs.jobs; UPDATE background_jobs.jobs SET available_at = now() WHERE queue = 'mail'")
        .await;
    let third = token_of(&plane.next_mail_to(NEW).await);
    good(&third).await;

    // An expired one makes room for a new one of the same address.
    plane.mailed().await;
    plane.database.execute("UPDATE iam.invitations SET expires_at = now() - interval '1 second'").await;
    let (fresh, token) = invited(&plane, &acme, NEW, "roles/viewer").await;
    assert_ne!(fresh["name"], invitation["name"]);
    worthless(&third).await;
    for state in ["SUSPENDED", "DELETED", "PURGED"] {
        plane.database.execute(&format!("UPDATE iam.tenants SET state = '{state}' WHERE slug = 'acme'")).await;
        worthless(&token).await;
    }
    plane.database.execute("UPDATE iam.tenants SET state = 'ACTIVE' WHERE slug = 'acme'").await;
    good(&token).await;

    // A member who was deactivated stays out.
    let (_, theirs) = invited(&plane, &rival, "admin@acme.example.com", "roles/viewer").await;
    let member = format!(
        "INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) \
         SELECT '{}', gen_random_uuid(), id, email, display_name, 'INACTIVE' FROM iam.users WHERE email = 'admin@acme.example.com'",
        id(&rival.tokens.tenant)
    );
    plane.database.execute(&member).await;
    worthless(&theirs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_exists_accepts_by_its_own_password() {
    let plane = ControlPlane::start().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let person = "admin@rival.example.com";
    let (invitation, token) = invited(&plane, &acme, person, "roles/user").await;
    assert_eq!(verify(&plane, &token).await.1["accountExists"], json!(true));
    plane.mailed().await;
    let rivals = all_of(&plane, &rival.tokens.tenant).await;
    let wrong = accept(&plane, &token, "not the password").await;
    refused(&wrong, 401, "UNAUTHENTICATED", "CREDENTIALS_WRONG");
    plane.database.execute("UPDATE iam.users SET state = 'INACTIVE' WHERE email LIKE '%rival%'").await;
    assert_eq!(accept(&plane, &token, PASSWORD).await, wrong, "an account that cannot sign in says no more");
    plane.database.execute("UPDATE iam.users SET state = 'ACTIVE' WHERE email LIKE '%rival%'").await;
    let audited = format!(
        "SELECT count(*) FROM audit.logs WHERE result = 'FAILED' AND reason = 'CREDENTIALS_WRONG' AND tenant_id = '{}'",
        id(&acme.tokens.tenant)
    );
    assert_eq!(plane.database.count(&audited).await, 2);

    let (status, joined) = accept(&plane, &token, PASSWORD).await;
    assert_eq!(status, 200, "{joined}");
    let me = async |tenant: &str| plane.login(person, tenant).await.rest().call("GET", "/v1/users/me", None).await.1;
    let member = me("acme").await;
    assert_eq!((&member["name"], &member["roles"]), (&joined["user"], &json!([invitation["role"]])));
    assert_ne!(member["displayName"], "New Person", "an account keeps its name");
    // Nothing of it in the tenant that the account was in before, though it was a member's credentials that did it.
    assert_eq!(all_of(&plane, &rival.tokens.tenant).await, rivals);
    assert_ne!(me("rival").await["name"], joined["user"]);

    // Removed and invited again: the same member, with nothing of what they had.
    plane.database.execute("UPDATE iam.memberships SET state = 'REMOVED' WHERE email LIKE '%rival%' AND id <> (SELECT min(id::text)::uuid FROM iam.memberships WHERE email LIKE '%rival%')").await;
    let (again, token) = invited(&plane, &acme, person, "roles/viewer").await;
    let (status, back) = accept(&plane, &token, PASSWORD).await;
    assert_eq!((status, &back["user"]), (200, &joined["user"]), "{back}");
    assert_eq!(me("acme").await["roles"], json!([again["role"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_made_beforehand_becomes_active() {
    let plane = ControlPlane::start().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    let user = UserId::new();
    let member = format!(
        "INSERT INTO iam.users (id, email, display_name) VALUES ('{user}', '{NEW}', 'As made'); \
         INSERT INTO iam.memberships (tenant_id, id, account_id, email, display_name, state) \
         SELECT id, '{user}', '{user}', '{NEW}', 'As the tenant calls them', 'INVITED' FROM iam.tenants WHERE slug = 'acme'; \
         INSERT INTO iam.user_tenant_roles SELECT tenant_id, '{user}', id FROM iam.tenant_roles r \
         WHERE display_name = 'viewer' AND tenant_id = (SELECT id FROM iam.tenants WHERE slug = 'acme')"
    );
    plane.database.execute(&member).await;
    let tenant: TenantId = id(&acme.tokens.tenant).parse().expect("an id");
    let invite_member = async || {
        let purpose = system(SystemPurpose::Reconcile);
        let opened = plane.store.write_as_system(&purpose, tenant, "test", async |tx| {
            let invite = Invite { email: NEW, grant: InvitationGrant::Member(user), inviter: None, expires_at: None };
            invitations::open(tx, &invite).await
        });
        opened.await.expect("an invitation").id.name()
    };
    let name = invite_member().await;
    let mail = plane.next_mail_to(NEW).await;
    assert!(mail.contains("You are invited to “acme”."), "{mail}");
    let (_, shown) = acme.rest().call("GET", &format!("/v1/{name}"), None).await;
    assert_eq!((&shown["role"], &shown["inviter"]), (&json!(""), &json!("")), "{shown}");
    plane.mailed().await;
    acme.rest().call("POST", &format!("/v1/{name}:revoke"), Some(json!({}))).await;
    let invited = "SELECT count(*) FROM iam.memberships WHERE state = 'INVITED'";
    assert_eq!(plane.database.count(invited).await, 1, "revoking leaves the member as they are");
    refused(&verify(&plane, &token_of(&mail)).await, 400, "FAILED_PRECONDITION", "INVITATION_INVALID");

    invite_member().await;
    let token = token_of(&plane.next_mail_to(NEW).await);
    assert_eq!(verify(&plane, &token).await.1["accountExists"], json!(false), "nobody has its password yet");
    plane.mailed().await;
    let rivals = all_of(&plane, &rival.tokens.tenant).await;
    let body = json!({"token": token, "password": PASSWORD});
    let rest = Rest::new(&plane.http, None);
    let (status, joined) = rest.call("POST", "/v1/invitations:accept", Some(body)).await;
    assert_eq!((status, &joined["user"]), (200, &json!(user.name())), "{joined}");
    let (_, me) = plane.login(NEW, "acme").await.rest().call("GET", "/v1/users/me", None).await;
    assert_eq!((&me["displayName"], &me["state"]), (&json!("As the tenant calls them"), &json!("ACTIVE")));
    assert_eq!(me["roles"].as_array().map(Vec::len), Some(1));
    assert_eq!(all_of(&plane, &rival.tokens.tenant).await, rivals);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accept_that_fails_leaves_nothing() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let (invitation, token) = invited(&plane, &acme, NEW, "roles/user").await;
    plane.mailed().await;
    let before = all_of(&plane, &acme.tokens.tenant).await;
    let people = "SELECT count(*) FROM iam.users";
    let accounts = plane.database.count(people).await;
    let fail =
        "CREATE FUNCTION public.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$";
    plane.database.execute(fail).await;
    for table in ["iam.memberships", "iam.user_tenant_roles", "audit.logs", "audit.changes"] {
        let on = format!("CREATE TRIGGER fail BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.fail()");
        plane.database.execute(&on).await;
        let answer = accept(&plane, &token, PASSWORD).await;
        refused(&answer, 500, "INTERNAL", "INTERNAL");
        plane.database.execute(&format!("DROP TRIGGER fail ON {table}")).await;
        assert_eq!(all_of(&plane, &acme.tokens.tenant).await, before, "{table}");
        assert_eq!(plane.database.count(people).await, accounts, "{table}");
    }
    // The role is gone: only behind the database's back, for it is in use.
    let role = id(invitation["role"].as_str().expect("a role"));
    let delete = format!(
        "DELETE FROM iam.tenant_role_permissions WHERE role_id = '{role}'; DELETE FROM iam.tenant_roles WHERE id = '{role}'"
    );
    let behind = format!(
        "BEGIN; SET LOCAL session_replication_role = replica; \
         CREATE TABLE public.kept AS SELECT * FROM iam.tenant_roles WHERE id = '{role}'; {delete}; COMMIT"
    );
    plane.database.execute(&behind).await;
    let answer = accept(&plane, &token, PASSWORD).await;
    refused(&answer, 400, "FAILED_PRECONDITION", "ROLE_IN_USE");
    assert_eq!(all_of(&plane, &acme.tokens.tenant).await, before);
    assert_eq!(plane.database.count(people).await, accounts);
    plane.database.execute("INSERT INTO iam.tenant_roles SELECT * FROM public.kept").await;
    assert_eq!(accept(&plane, &token, PASSWORD).await.0, 200, "the token is still good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_sends_again_with_another_token() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let points = [
        ("mint", Point::BeforeCommit, 1),
        ("mint", Point::AfterCommit, 1),
        ("send", Point::BeforeCall, 1),
        ("send", Point::AfterCall, 2),
        ("send", Point::BeforeCommit, 2),
        ("send", Point::AfterCommit, 1),
    ];
    for (number, (step, point, mails)) in points.into_iter().enumerate() {
        let crash = Crash { step: format!("invitation_mail.{step}"), point };
        let probe = Arc::new(CrashProbe::new(Some(crash.clone())));
        let victim = plane.work(Arc::clone(&probe) as _).await;
        let email = format!("p{number}@example.com");
        let name = invite(&acme, &email, "roles/viewer").await["name"].as_str().expect("a name").to_owned();
        probe.crashed().await;
        drop(victim);
        let digest = format!(
            "SELECT coalesce(hashtext(digest::text), 0)::bigint FROM iam.invitations WHERE id = '{}'",
            id(&name)
        );
        let lost = plane.database.count(&digest).await;
        let survivor = plane.work(Arc::new(NoProbe)).await;
        plane.mailed().await;
        let mails_sent = plane.mail_to(&email);
        assert_eq!(mails_sent.len(), mails, "{crash:?}");
        let (last, earlier) = mails_sent.split_last().expect("a mail");
        for mail in earlier {
            refused(&verify(&plane, &token_of(mail)).await, 400, "FAILED_PRECONDITION", "INVITATION_INVALID");
        }
        assert_eq!(verify(&plane, &token_of(last)).await.0, 200, "{crash:?}");
        let kept = plane.database.count(&digest).await;
        assert_eq!(kept == lost, point == Point::AfterCommit && step == "send", "{crash:?}: another token");
        let sent =
            format!("SELECT count(*) FROM audit.changes WHERE resource = '{name}' AND reason = 'INVITATION_SENT'");
        assert_eq!(plane.database.count(&sent).await, 1, "{crash:?}");
        survivor.drain().await;
    }
}

/// Sends nothing: fails for a while, for ever, or never comes back.
enum Relay {
    Failing { times: u32, retry: bool, tried: AtomicU32 },
    Silent,
}

#[async_trait]
impl Mailer for Relay {
    async fn send(&self, _: Message) -> Result<(), Fault> {
        match self {
            Self::Silent => std::future::pending().await,
            Self::Failing { times, retry, tried } => {
                if tried.fetch_add(1, Ordering::SeqCst) < *times {
                    return Err(Fault { retry: *retry, message: "the relay answered 451".to_owned() });
                }
                Ok(())
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_fails_is_tried_again_and_a_slow_one_keeps_no_vm_waiting() {
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;

    // Refused for good: given up at once, for the operator to see.
    let refusing = Relay::Failing { times: u32::MAX, retry: false, tried: AtomicU32::new(0) };
    let worker = plane.work_mailing(Arc::new(refusing)).await;
    let name = invite(&acme, "refused@example.com", "roles/viewer").await["name"].clone();
    plane.mailed().await;
    let discarded = "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'invitation_mail' AND state = 'discarded' \
                     AND attempt = 1 AND last_error = 'the relay answered 451'";
    assert_eq!(plane.database.count(discarded).await, 1);
    let (_, shown) = acme.rest().call("GET", &format!("/v1/{}", name.as_str().expect("a name")), None).await;
    assert_eq!((&shown["sendTime"], &shown["state"]), (&json!(null), &json!("PENDING")));
    worker.drain().await;

    // Not now: tried again, with the attempts counted.
    let failing = Relay::Failing { times: 1, retry: true, tried: AtomicU32::new(0) };
    let worker = plane.work_mailing(Arc::new(failing)).await;
    invite(&acme, "later@example.com", "roles/viewer").await;
    plane.mailed().await;
    let completed = "SELECT count(*) FROM background_jobs.jobs WHERE kind = 'invitation_mail' AND state = 'completed' \
                     AND fencing_token = 2 AND last_error = 'the relay answered 451'";
    assert_eq!(plane.database.count(completed).await, 1);
    worker.drain().await;

    // Twenty mails that never end leave all slots to VMs.
    let _stuck = plane.work_mailing(Arc::new(Relay::Silent)).await;
    plane.templates().await;
    for number in 0..20 {
        invite(&acme, &format!("p{number}@example.com"), "roles/viewer").await;
    }
    acme.running("web-1").await;
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// On threads of its own, whose log is this test's alone.
#[test]
fn no_level_of_the_log_shows_a_token() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let dispatch = tracing::Dispatch::new(subscriber);
    // With one subscriber alone, tracing asks that of the thread which comes to a line first, and other tests have none.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // As long as the thread lives.
        .on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&dispatch)))
        .build()
        .expect("a runtime");
    let secrets = runtime.block_on(async { tokio::spawn(use_every_secret()).await.expect("no panic") });
    let log = String::from_utf8_lossy(&log.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
    let shown = &log[..log.len().min(1000)];
    assert!(log.contains("AcceptInvitation") && log.contains("ResetPassword"), "no log of ours: {shown}");
    for secret in secrets {
        assert!(!log.contains(&secret), "{:?}", log.lines().find(|line| line.contains(&secret)));
    }
}

/// Uses tokens and passwords in every way; what must not be shown.
async fn use_every_secret() -> Vec<String> {
    const OTHER: &str = "battery staple correct";
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let (_, token) = invited(&plane, &acme, NEW, "roles/viewer").await;
    assert_eq!(accept(&plane, "vsi_unknown", PASSWORD).await.0, 400);
    assert_eq!(accept(&plane, &token, PASSWORD).await.0, 200);
    let rest = Rest::new(&plane.http, None);
    let ask = json!({"email": NEW});
    assert_eq!(rest.call("POST", "/v1/auth:requestPasswordReset", Some(ask)).await.0, 200);
    let reset = token_of(&plane.next_mail_to(NEW).await);
    let body = json!({"token": reset, "password": OTHER});
    assert_eq!(rest.call("POST", "/v1/auth:resetPassword", Some(body)).await.0, 200);
    plane.mailed().await;
    vec![token, reset, PASSWORD.to_owned(), OTHER.to_owned()]
}
