//! Many callers at once: whatever order they come in, there is one outcome. The order is drawn from a seed, which a
//! failure shows and VIRTUALSTACK_TEST_SEED repeats.

use std::time::Duration;

use serde_json::{Value, json};
use virtualstack_proto::virtualstack::iam::v1::AcceptInvitationRequest;
use virtualstack_proto::virtualstack::iam::v1::invitation_service_client::InvitationServiceClient;

use super::token_of;
use crate::support::{ControlPlane, Rest, Session, reason};

/// Numbers that look random (SplitMix64).
struct Seed(u64);

impl Seed {
    #[expect(
        clippy::disallowed_methods,
        clippy::print_stdout,
        reason = "a setting of tests only, shown by those that fail"
    )]
    fn new() -> Self {
        let given = std::env::var("VIRTUALSTACK_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
        let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        println!("VIRTUALSTACK_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
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
    let tries = (0..50).map(|number| (number, seed.below(60), seed.below(2) == 0)).collect::<Vec<_>>();
    let answers = futures::future::join_all(tries.into_iter().map(|(number, wait, grpc)| {
        let (plane, acme, token) = (&plane, &acme, &token);
        async move {
            tokio::time::sleep(Duration::from_millis(wait)).await;
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
        ("audit.logs WHERE action LIKE '%.AcceptInvitation'", 1),
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
        let waits = [seed.below(20), seed.below(20)];
        let passwords = ["horse battery staple 1", "horse battery staple 2"];
        let answers = futures::future::join_all((0..2).map(|number| {
            let (plane, acme, token) = (&plane, &acme, &tokens[number]);
            async move {
                tokio::time::sleep(Duration::from_millis(waits[number])).await;
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
