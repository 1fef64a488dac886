//! What holds when many call at once: 50 callers in an order that a seed makes. It is printed when a test fails, and
//! taken from VIRTUALSTACK_TEST_SEED.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use serde_json::{Value, json};
use tonic::transport::Channel;
use tonic::{Code, Status};
use virtualstack_proto::virtualstack::iam::v1::invitation_service_client::InvitationServiceClient;
use virtualstack_proto::virtualstack::iam::v1::role_service_client::RoleServiceClient;
use virtualstack_proto::virtualstack::iam::v1::user_service_client::UserServiceClient;
use virtualstack_proto::virtualstack::iam::v1::{
    AcceptInvitationRequest, AssignRoleRequest, DeactivateUserRequest, DeleteRoleRequest, DeleteUserRequest,
    SetRoleUsersRequest, UnassignRoleRequest,
};

use crate::api::token_of;
use crate::support::{ControlPlane, PASSWORD, Rest, Seed, Session, reason};

/// How many call at once.
const CALLERS: usize = 50;

/// Repeats a call while the answer is that something else got in between, as its client would.
async fn insisting<T>(call: impl AsyncFn() -> Result<T, Status>) -> Result<T, Status> {
    loop {
        match call().await {
            Err(status) if matches!(status.code(), Code::Aborted | Code::Unavailable) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            answer => return answer,
        }
    }
}

fn users(session: &Session) -> UserServiceClient<Channel> {
    UserServiceClient::new(session.channel.clone())
}

fn roles(session: &Session) -> RoleServiceClient<Channel> {
    RoleServiceClient::new(session.channel.clone())
}

/// Makes something over REST; its full name.
async fn made(session: &Session, path: &str, body: serde_json::Value) -> String {
    let (status, body) = session.rest().call("POST", path, Some(body)).await;
    assert_eq!(status, 200, "{body}");
    body["name"].as_str().expect("a name").to_owned()
}

/// How somebody stops being an admin.
#[derive(Clone, Copy, Debug)]
enum End {
    Deactivate,
    Delete,
    Unassign,
}

async fn end(caller: &Session, name: &str, how: End) -> Result<(), Status> {
    let name = name.to_owned();
    let mut users = users(caller);
    match how {
        End::Deactivate => users.deactivate_user(caller.request(DeactivateUserRequest { name })).await.map(|_| ()),
        End::Delete => {
            let request = DeleteUserRequest { name, ..Default::default() };
            users.delete_user(caller.request(request)).await.map(|_| ())
        }
        End::Unassign => {
            let request = UnassignRoleRequest { name, role: "roles/tenant_admin".to_owned() };
            users.unassign_role(caller.request(request)).await.map(|_| ())
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_admins_that_are_taken_at_once_one_is_left() {
    let mut seed = Seed::new();
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    // Somebody who may do all that an admin may and is none, so that every admin is a target to the end.
    let of_admins = virtualstack_proto::permissions().filter(|permission| permission.roles.contains(&"tenant_admin"));
    let permissions: Vec<_> = of_admins.map(|permission| permission.code).collect();
    let officer = made(&acme, "/v1/roles", json!({"displayName": "officer", "permissions": permissions})).await;
    let mut admins = vec![(
        acme.clone(),
        acme.rest().call("GET", "/v1/users/me", None).await.1["name"].as_str().expect("a name").to_owned(),
    )];
    let add = async |email: &str, role: &str| {
        let user = json!({"email": email, "displayName": email, "password": PASSWORD, "roles": [role]});
        let name = made(&acme, "/v1/users", user).await;
        (plane.login(email, "acme").await, name)
    };
    let officer = add("officer@example.com", &officer).await.0;
    for index in 1..5 {
        admins.push(add(&format!("admin{index}@example.com"), "roles/tenant_admin").await);
    }

    // Each admin is asked for by the officer several times, and by the others besides.
    let hows = [End::Deactivate, End::Delete, End::Unassign];
    let mut calls: Vec<_> = (0..CALLERS)
        .map(|index| {
            let by_officer = index < 6 * admins.len();
            let caller = if by_officer { &officer } else { &admins[seed.below(admins.len())].0 };
            let target = if by_officer { index % admins.len() } else { seed.below(admins.len()) };
            (caller, by_officer, &admins[target].1, hows[seed.below(hows.len())])
        })
        .collect();
    seed.shuffle(&mut calls);
    let answers = join_all(calls.iter().map(async |(caller, by_officer, target, how)| {
        (*by_officer, *target, insisting(async || end(caller, target, *how).await).await)
    }))
    .await;

    let left = "SELECT count(DISTINCT m.id) FROM iam.memberships m JOIN iam.tenants t ON t.id = m.tenant_id AND t.slug = 'acme' \
        JOIN iam.user_tenant_roles ur ON ur.membership_id = m.id JOIN iam.tenant_roles r ON r.id = ur.role_id \
        WHERE m.state = 'ACTIVE' AND r.display_name = 'tenant_admin'";
    assert_eq!(plane.database.count(left).await, 1, "{answers:?}");
    let mut spared = std::collections::BTreeSet::new();
    for (by_officer, target, answer) in &answers {
        let Err(status) = answer else { continue };
        match (status.code(), reason(status).as_str()) {
            (Code::FailedPrecondition, "LAST_ADMIN") => _ = spared.insert(*target),
            (Code::NotFound, "USER_NOT_FOUND") => {}
            // Who was taken can take nobody any more.
            (Code::PermissionDenied, "PERMISSION_MISSING" | "MEMBERSHIP_INACTIVE") if !by_officer => {}
            other => panic!("refused for {other:?}: {status:?}"),
        }
    }
    assert_eq!(spared.len(), 1, "the one who is left, and nobody else, was the last: {answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_is_deleted_or_held_and_never_both() {
    let mut seed = Seed::new();
    let plane = ControlPlane::without_worker().await;
    let acme = plane.tenant("acme").await;
    let (mut names, mut members) = (Vec::new(), Vec::new());
    for index in 0..10 {
        let role = json!({"displayName": format!("role {index}"), "permissions": ["vm:read"]});
        names.push(made(&acme, "/v1/roles", role).await);
        let user = json!({"email": format!("m{index}@example.com"), "displayName": "M"});
        members.push(made(&acme, "/v1/users", user).await);
    }
    // Of each role: two deletions, two members to be given it, one list of members to be set.
    let mut calls: Vec<_> =
        (0..CALLERS).map(|index| (index % names.len(), index / names.len(), seed.below(members.len()))).collect();
    seed.shuffle(&mut calls);
    let call = async |role: usize, kind: usize, member: usize| {
        let (name, member) = (names[role].clone(), members[member].clone());
        match kind {
            0 | 1 => {
                let request = DeleteRoleRequest { name, ..Default::default() };
                roles(&acme).delete_role(acme.request(request)).await.map(|_| ())
            }
            2 | 3 => {
                let request = AssignRoleRequest { name: member, role: name };
                users(&acme).assign_role(acme.request(request)).await.map(|_| ())
            }
            _ => {
                let request = SetRoleUsersRequest { name, users: vec![member] };
                roles(&acme).set_role_users(acme.request(request)).await.map(|_| ())
            }
        }
    };
    let answers =
        join_all(calls.iter().map(async |&(role, kind, member)| {
            (role, kind < 2, insisting(async || call(role, kind, member).await).await)
        }))
        .await;

    for (index, name) in names.iter().enumerate() {
        let id = name.trim_start_matches("roles/");
        let there = plane.database.count(&format!("SELECT count(*) FROM iam.tenant_roles WHERE id = '{id}'")).await;
        let held =
            plane.database.count(&format!("SELECT count(*) FROM iam.user_tenant_roles WHERE role_id = '{id}'")).await;
        let of_role = answers.iter().filter(|(role, ..)| *role == index);
        let (deletions, assignments): (Vec<_>, Vec<_>) = of_role.partition(|(_, deletes, _)| *deletes);
        let done = |calls: &[&(usize, bool, Result<(), Status>)]| calls.iter().filter(|call| call.2.is_ok()).count();
        match (there, held) {
            (0, 0) => assert_eq!((done(&deletions), done(&assignments)), (1, 0), "{name}: {answers:?}"),
            (1, 1..) => assert_eq!((done(&deletions), done(&assignments)), (0, 3), "{name}: {answers:?}"),
            other => panic!("{name} is {other:?}: {answers:?}"),
        }
    }
    for (_, deletes, answer) in &answers {
        let Err(status) = answer else { continue };
        match (deletes, status.code(), reason(status).as_str()) {
            (true, Code::FailedPrecondition, "ROLE_IN_USE") | (_, Code::NotFound, "ROLE_NOT_FOUND") => {}
            other => panic!("refused for {other:?}: {status:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_rotations_the_last_and_the_one_before_count() {
    let plane = ControlPlane::without_worker().await;
    let rest = plane.admin().await.rest();
    let body = json!({"displayName": "ci", "permissions": ["vm:read"]});
    let (_, key) = rest.call("POST", "/v1/apiKeys", Some(body)).await;
    let path = format!("/v1/{}:rotate", key["name"].as_str().expect("a name"));
    let replies = join_all((0..CALLERS).map(|_| rest.call("POST", &path, Some(json!({}))))).await;
    assert!(replies.iter().all(|(status, _)| *status == 200), "{replies:?}");
    let version =
        |key: &Value| -> usize { key["etag"].as_str().expect("an etag").trim_matches('"').parse().expect("one") };
    let mut keys: Vec<_> = std::iter::once(key).chain(replies.into_iter().map(|(_, key)| key)).collect();
    keys.sort_by_key(version);
    assert_eq!(
        keys.iter().map(version).collect::<Vec<_>>(),
        (1..=CALLERS + 1).collect::<Vec<_>>(),
        "one after the other"
    );
    let secrets: Vec<_> = keys.iter().map(|key| key["secret"].as_str().expect("a secret").to_owned()).collect();
    assert_eq!(secrets.iter().collect::<BTreeSet<_>>().len(), CALLERS + 1, "no secret is given twice");
    let anonymous = Rest::new(&plane.http, None);
    let works = async |secret: &String| {
        anonymous
            .request("GET", "/v1/vms")
            .header("x-api-key", secret)
            .send()
            .await
            .expect("a reply")
            .status()
            .is_success()
    };
    let working = join_all(secrets.iter().map(works)).await;
    let desired: Vec<_> = (0..=CALLERS).map(|index| index >= CALLERS - 1).collect();
    assert_eq!(working, desired);
    let rows = "SELECT count(*) FROM iam.api_keys WHERE generation = 51 AND version = 51";
    assert_eq!(plane.database.count(rows).await, 1);
}

/// A try to accept, some of them over gRPC, some over REST; the reason of a refusal.
async fn accept(
    plane: &ControlPlane,
    session: &Session,
    token: &str,
    password: &str,
    grpc: bool,
) -> Result<(), String> {
    if grpc {
        let (token, password) = (token.to_owned(), password.to_owned());
        let request = AcceptInvitationRequest { token, password, display_name: String::new() };
        let answer = InvitationServiceClient::new(session.channel.clone()).accept_invitation(request).await;
        return answer.map(|_| ()).map_err(|status| reason(&status));
    }
    let body = json!({"token": token, "password": password});
    let (status, body) = Rest::new(&plane.http, None).call("POST", "/v1/invitations:accept", Some(body)).await;
    if status == 200 {
        return Ok(());
    }
    let details = body["error"]["details"].as_array().expect("details");
    let reason = details.iter().find_map(|detail| detail["reason"].as_str());
    Err(reason.expect("a reason").to_owned())
}

async fn invited(plane: &ControlPlane, session: &Session, email: &str) -> String {
    let body = json!({"email": email, "role": "roles/viewer"});
    let (status, invitation): (u16, Value) = session.rest().call("POST", "/v1/invitations", Some(body)).await;
    assert_eq!(status, 200, "{invitation}");
    token_of(&plane.next_mail_to(email).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_fifty_who_accept_at_once_one_does() {
    const EMAIL: &str = "new@example.com";
    let mut seed = Seed::new();
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let token = invited(&plane, &acme, EMAIL).await;
    let password = |number: usize| format!("horse battery staple {number}");
    let tries = (0..CALLERS).map(|number| (number, seed.millis(60), seed.below(2) == 0)).collect::<Vec<_>>();
    let answers = join_all(tries.into_iter().map(|(number, wait, grpc)| {
        let (plane, acme, token) = (&plane, &acme, &token);
        async move {
            tokio::time::sleep(wait).await;
            accept(plane, acme, token, &password(number), grpc).await
        }
    }))
    .await;
    let winners: Vec<_> = answers.iter().enumerate().filter(|(_, answer)| answer.is_ok()).map(|(n, _)| n).collect();
    let [winner] = winners[..] else { panic!("not one winner: {answers:?}") };
    assert!(
        answers.iter().flat_map(|answer| answer.as_ref().err()).all(|why| why == "INVITATION_INVALID"),
        "{answers:?}"
    );
    Session::login(&plane, EMAIL, &password(winner), "acme").await.expect("the winner's password is the account's");
    for (rows, number) in [
        ("iam.users WHERE email = 'new@example.com'", 1),
        ("iam.memberships WHERE email = 'new@example.com'", 1),
        (
            "iam.user_tenant_roles r JOIN iam.memberships m ON m.id = r.membership_id WHERE m.email = 'new@example.com'",
            1,
        ),
        ("audit.logs WHERE action LIKE '%.AcceptInvitation' AND result = 'OK'", 1),
        ("audit.changes WHERE reason IN ('INVITATION_ACCEPTED', 'USER_JOINED')", 2),
    ] {
        assert_eq!(plane.database.count(&format!("SELECT count(*) FROM {rows}")).await, number, "{rows}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_invited_twice_has_one_account() {
    let mut seed = Seed::new();
    let plane = ControlPlane::start().await;
    let (acme, rival) = (plane.tenant("acme").await, plane.tenant("rival").await);
    for round in 0..4 {
        let email = format!("p{round}@example.com");
        let tokens = [invited(&plane, &acme, &email).await, invited(&plane, &rival, &email).await];
        let waits = [seed.millis(20), seed.millis(20)];
        let passwords = ["horse battery staple 1", "horse battery staple 2"];
        let answers = join_all((0..2).map(|number| {
            let (plane, acme, token) = (&plane, &acme, &tokens[number]);
            async move {
                tokio::time::sleep(waits[number]).await;
                accept(plane, acme, token, passwords[number], false).await
            }
        }))
        .await;
        let winner = answers.iter().position(Result::is_ok).expect("one of them");
        let loser = 1 - winner;
        let why = answers[loser].as_ref().expect_err("the account has the other password");
        assert!(["ACCOUNT_CHANGED", "CREDENTIALS_WRONG"].contains(&why.as_str()), "{why}");
        let members = format!("SELECT count(*) FROM iam.memberships WHERE email = '{email}'");
        assert_eq!(plane.database.count(&members).await, 1, "the other tenant is not entered");
        // The other invitation is still open, to who knows the password.
        accept(&plane, &acme, &tokens[loser], passwords[winner], true).await.expect("accepted");
        assert_eq!(plane.database.count(&members).await, 2);
    }
}

/// Two admins take each other's role away at once: who comes second has no right to any more.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_demoted_while_they_waited_demotes_nobody() {
    let plane = ControlPlane::without_worker().await;
    let admin = plane.tenant("acme").await.rest();
    let mut sides = Vec::new();
    for email in ["ada@example.com", "bob@example.com"] {
        let session = plane.member(email, "acme", "tenant_admin").await.rest();
        let name = session.call("GET", "/v1/users/me", None).await.1["name"].as_str().expect("a name").to_owned();
        sides.push((session, format!("/v1/{name}")));
    }
    let role = || Some(json!({"role": "roles/tenant_admin"}));
    for round in 0..10 {
        let [(ada, a), (bob, b)] = &sides[..] else { panic!("two") };
        let (by_ada, by_bob) = (format!("{b}:unassignRole"), format!("{a}:unassignRole"));
        let answers = tokio::join!(ada.call("POST", &by_ada, role()), bob.call("POST", &by_bob, role()));
        let done = [&answers.0, &answers.1].iter().filter(|(status, _)| *status == 200).count();
        assert_eq!(done, 1, "round {round}: {answers:?}");
        for (_, path) in &sides {
            assert_eq!(admin.call("POST", &format!("{path}:assignRole"), role()).await.0, 200);
        }
    }

    // Nor does somebody keep a role by giving it to themselves meanwhile.
    let (ada, path) = &sides[0];
    let (give, take) = (format!("{path}:assignRole"), format!("{path}:unassignRole"));
    let giving = join_all((0..8).map(|_| ada.call("POST", &give, role())));
    let (_, (status, answer)) = tokio::join!(giving, admin.call("POST", &take, role()));
    assert_eq!(status, 200, "{answer}");
    let (_, user) = admin.call("GET", path, None).await;
    assert_eq!(user["roles"], json!([]), "taken is taken");
}

/// A login that began before the password was changed starts no session after it.
#[tokio::test(flavor = "multi_thread")]
async fn no_login_outlives_the_password_that_it_was_made_with() {
    let plane = ControlPlane::without_worker().await;
    let session = plane.tenant("acme").await;
    let anonymous = Rest::new(&plane.http, None);
    let login = || {
        let body = json!({"email": "admin@acme.example.com", "password": PASSWORD, "tenant": "acme"});
        anonymous.call("POST", "/v1/auth:login", Some(body))
    };
    let change = json!({"oldPassword": PASSWORD, "newPassword": "staple battery horse"});
    let rest = session.rest();
    let changing = rest.call("POST", "/v1/users/me:changePassword", Some(change));
    let logins = join_all((0..8).map(|number| {
        let login = login();
        async move {
            tokio::time::sleep(Duration::from_millis(number * 15)).await;
            login.await
        }
    }));
    let ((status, answer), logins) = tokio::join!(changing, logins);
    assert_eq!(status, 200, "{answer}");
    for (status, tokens) in logins {
        if status == 200 {
            let token = tokens["accessToken"].as_str();
            let (status, answer) = Rest::new(&plane.http, token).call("GET", "/v1/sessions/current", None).await;
            assert_eq!(status, 401, "a session of the old password goes on: {answer}");
        }
    }
    assert_eq!(login().await.0, 401);
    assert_eq!(rest.call("GET", "/v1/sessions/current", None).await.0, 200, "the session that changed it goes on");
}
