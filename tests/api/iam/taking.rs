//! Who cannot give may not take: whatever takes something from somebody who holds more than the caller is refused.

use serde_json::{Value, json};

use crate::api::{Reply, refused};
use crate::support::{ControlPlane, PASSWORD, Rest, Session};
use crate::tenancy::calls::texts;

#[track_caller]
fn ok(reply: Reply) -> Value {
    assert_eq!(reply.0, 200, "{}", reply.1);
    reply.1
}

fn name(resource: &Value) -> String {
    resource["name"].as_str().expect("a name").to_owned()
}

/// A new active member with these roles, signed in; and their full name.
async fn member(plane: &ControlPlane, admin: &Session, email: &str, roles: &[&str]) -> (Session, String) {
    let user = json!({"email": email, "displayName": email, "password": PASSWORD, "roles": roles});
    let added = ok(admin.rest().call("POST", "/v1/users", Some(user)).await);
    (plane.login(email, &admin.tokens.tenant).await, name(&added))
}

async fn role(rest: &Rest, display_name: &str, permissions: &[&str]) -> String {
    let role = json!({"displayName": display_name, "permissions": permissions});
    name(&ok(rest.call("POST", "/v1/roles", Some(role)).await))
}

/// All that a manager of people needs, and nothing else.
const MANAGER: [&str; 10] = [
    "user:read",
    "user:create",
    "user:update",
    "user:delete",
    "role:read",
    "role:update",
    "role:delete",
    "role:assign",
    "permission:assign",
    "invitation:create",
];

/// Every call that takes something from `user`, who holds `held`, or from the role `spare` that nobody holds.
async fn takings(rest: &Rest, user: &str, held: &str, spare: &str) -> Vec<(&'static str, Reply)> {
    let body = Some(json!({"role": held}));
    vec![
        ("unassignRole", rest.call("POST", &format!("/v1/{user}:unassignRole"), body).await),
        ("setUsers", rest.call("POST", &format!("/v1/{held}:setUsers"), Some(json!({"users": []}))).await),
        (
            "permissions out of a role that they hold",
            rest.call("PATCH", &format!("/v1/{held}?updateMask=permissions"), Some(json!({"permissions": []}))).await,
        ),
        (
            "permissions out of a role",
            rest.call("PATCH", &format!("/v1/{spare}?updateMask=permissions"), Some(json!({"permissions": []}))).await,
        ),
        ("delete of a role", rest.call("DELETE", &format!("/v1/{spare}"), None).await),
        ("deactivate", rest.call("POST", &format!("/v1/{user}:deactivate"), Some(json!({}))).await),
        ("delete", rest.call("DELETE", &format!("/v1/{user}"), None).await),
    ]
}

/// Within a tenant, and within the provider's: a manager takes nothing from who holds more, by whatever call.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_from_who_holds_more() {
    let plane = ControlPlane::without_worker().await;
    for (index, (admin, above)) in
        [(plane.tenant("acme").await, "vm:delete"), (plane.operator().await, "platform:tenant:suspend")]
            .into_iter()
            .enumerate()
    {
        let rest = admin.rest();
        let manages = role(&rest, "manages", &MANAGER).await;
        let (manager, _) = member(&plane, &admin, &format!("manager{index}@example.com"), &[&manages]).await;
        let manager = manager.rest();
        // What the manager holds too, and one who holds it together with something more.
        let small = role(&rest, "small", &["user:read"]).await;
        let [big, spare] = [role(&rest, "big", &["user:read", above]).await, role(&rest, "spare", &[above]).await];
        let (_, superior) = member(&plane, &admin, &format!("superior{index}@example.com"), &[&small, &big]).await;
        for held in [&small, &big] {
            for (what, reply) in takings(&manager, &superior, held, &spare).await {
                let told = refused(&reply, 403, "PERMISSION_DENIED", "TARGET_EXCEEDS_OWN");
                assert!(told.is_empty(), "{what}: {told:?}");
            }
        }
        let kept = format!(
            "SELECT count(*) FROM iam.user_tenant_roles r JOIN iam.memberships m ON m.id = r.membership_id \
             WHERE 'users/' || m.id = '{superior}' AND m.state = 'ACTIVE'"
        );
        assert_eq!(plane.database.count(&kept).await, 2, "nothing was taken");

        // From who holds no more than the manager, all of it works, in this order.
        let (_, equal) = member(&plane, &admin, &format!("equal{index}@example.com"), &[&manages]).await;
        let mine = role(&rest, "mine", &["user:read"]).await;
        let given = Some(json!({"role": mine}));
        ok(manager.call("POST", &format!("/v1/{equal}:assignRole"), given).await);
        let spare = role(&rest, "spare too", &["user:read"]).await;
        for (what, reply) in takings(&manager, &equal, &mine, &spare).await {
            assert_eq!(reply.0, 200, "{what}: {}", reply.1);
        }
        // And so it does from oneself, and for who holds as much as the superior.
        ok(rest.call("POST", &format!("/v1/{superior}:unassignRole"), Some(json!({"role": big}))).await);
        ok(rest.call("DELETE", &format!("/v1/{superior}"), None).await);
    }
}

/// An invitation is worth as much as its inviter: whatever takes their right to make it ends it, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_ends_with_the_right_of_its_inviter() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let takings = ["removed", "deactivated", "demoted", "by setUsers", "by the role", "by the system"];
    for (index, what) in takings.into_iter().enumerate() {
        let held = role(&rest, &format!("invites {index}"), &["invitation:create", "role:assign", "vm:read"]).await;
        let granted = role(&rest, &format!("sees {index}"), &["vm:read"]).await;
        let (inviter, user) = member(&plane, &acme, &format!("inviter{index}@example.com"), &[&held]).await;
        let email = format!("guest{index}@example.com");
        let invite = json!({"email": email, "role": granted});
        let invitation = ok(inviter.rest().call("POST", "/v1/invitations", Some(invite)).await);
        let mail = plane.next_mail_to(&email).await;
        let token = mail.split_whitespace().find(|word| word.starts_with("vsi_")).expect("a token").to_owned();
        let verify = async || {
            let body = json!({"token": token});
            Rest::new(&plane.http, None).call("POST", "/v1/invitations:verify", Some(body)).await
        };
        ok(verify().await);
        match what {
            "removed" => _ = ok(rest.call("DELETE", &format!("/v1/{user}"), None).await),
            "deactivated" => _ = ok(rest.call("POST", &format!("/v1/{user}:deactivate"), Some(json!({}))).await),
            "demoted" => {
                let body = Some(json!({"role": held}));
                ok(rest.call("POST", &format!("/v1/{user}:unassignRole"), body).await);
            }
            "by setUsers" => {
                ok(rest.call("POST", &format!("/v1/{held}:setUsers"), Some(json!({"users": []}))).await);
            }
            "by the role" => {
                let fewer = json!({"permissions": ["invitation:create", "role:assign"]});
                ok(rest.call("PATCH", &format!("/v1/{held}?updateMask=permissions"), Some(fewer)).await);
            }
            // What no call of today does: the check of the token is the truth.
            _ => {
                plane
                    .database
                    .execute(&format!("DELETE FROM iam.user_tenant_roles WHERE 'roles/' || role_id = '{held}'"))
                    .await
            }
        }
        refused(&verify().await, 400, "FAILED_PRECONDITION", "INVITATION_INVALID");
        let accept = json!({"token": token, "password": PASSWORD});
        let accepted = Rest::new(&plane.http, None).call("POST", "/v1/invitations:accept", Some(accept)).await;
        refused(&accepted, 400, "FAILED_PRECONDITION", "INVITATION_INVALID");
        if what != "by the system" {
            let invitation = name(&invitation);
            let now = ok(rest.call("GET", &format!("/v1/{invitation}"), None).await);
            assert_eq!(now["state"], "REVOKED", "{what}");
            let told = format!(
                "SELECT reason FROM audit.changes WHERE resource = '{invitation}' ORDER BY position DESC LIMIT 1"
            );
            assert_eq!(texts(&plane.database, &told).await, ["INVITATION_REVOKED"], "{what}");
        }
    }
}

/// A member to be whom somebody else gave more than the inviter has comes in on that one's word.
#[tokio::test(flavor = "multi_thread")]
async fn who_gives_a_member_to_be_more_answers_for_them() {
    let plane = ControlPlane::start().await;
    let acme = plane.tenant("acme").await;
    let rest = acme.rest();
    let adds = role(&rest, "adds people", &["user:create", "user:read"]).await;
    let (manager, manager_name) = member(&plane, &acme, "manager@example.com", &[&adds]).await;
    let new = json!({"email": "new@example.com", "displayName": "New"});
    let new = name(&ok(manager.rest().call("POST", "/v1/users", Some(new)).await));
    let mail = plane.next_mail_to("new@example.com").await;
    let token = mail.split_whitespace().find(|word| word.starts_with("vsi_")).expect("a token").to_owned();
    ok(rest.call("POST", &format!("/v1/{new}:assignRole"), Some(json!({"role": "roles/tenant_admin"}))).await);
    // The one who asked at first has nothing to do with it any more.
    ok(rest.call("DELETE", &format!("/v1/{manager_name}"), None).await);
    let accept = json!({"token": token, "password": PASSWORD});
    ok(Rest::new(&plane.http, None).call("POST", "/v1/invitations:accept", Some(accept)).await);

    // Nor does a first login let somebody in whose inviter has gone.
    let (manager, manager_name) = member(&plane, &acme, "second@example.com", &[&adds]).await;
    let waits = json!({"email": "waits@example.com", "displayName": "W", "password": PASSWORD});
    ok(manager.rest().call("POST", "/v1/users", Some(waits)).await);
    ok(rest.call("DELETE", &format!("/v1/{manager_name}"), None).await);
    let login = json!({"email": "waits@example.com", "password": PASSWORD});
    let reply = Rest::new(&plane.http, None).call("POST", "/v1/auth:login", Some(login)).await;
    refused(&reply, 403, "PERMISSION_DENIED", "MEMBERSHIP_INACTIVE");
}
