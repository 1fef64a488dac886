//! Mails as their readers see them, whatever encoding they travel in.

use virtualstack_worker::adapters::mail::{Config, Message, connect};

use crate::support::ControlPlane;

#[tokio::test(flavor = "multi_thread")]
async fn mails_are_read_in_the_order_of_their_sending() {
    let plane = ControlPlane::without_worker().await;
    let mailer = connect(&Config::default(), plane.mails.folder()).expect("a mailer");
    let link = "http://127.0.0.1:8080/reset?token=a_b-c&x=1";
    let texts = [format!("Hello,\n\n{link}\n"), format!("Grüße, 鈴木さん,\n\n{link}\n{}\n", "long ".repeat(300))];
    let send = async |to: &str, text: &str| {
        let (to, subject, text, html) = (to.to_owned(), "Grüße".to_owned(), text.to_owned(), String::new());
        let message = Message { to, subject, text, html, unsubscribe: None, id: uuid::Uuid::now_v7() };
        mailer.send(message).await.expect("sent");
    };
    assert_eq!(plane.mail_to("ada@example.com"), Vec::<String>::new());
    send("ada@example.com", &texts[0]).await;
    send("bob@example.com", "Hello Bob\n").await;
    send("ada@example.com", &texts[1]).await;
    assert_eq!(plane.next_mail_to("Ada@example.com").await, texts[0]);
    assert_eq!(plane.next_mail_to("ada@example.com").await, texts[1]);
    assert_eq!(plane.mail_to("ada@example.com"), texts);
    assert_eq!(plane.mail_to("bob@example.com"), ["Hello Bob\n"]);
}
