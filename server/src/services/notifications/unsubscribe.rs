//! What a reader of mails sees who wants no more of a kind.

use virtualstack_proto::google::api::HttpBody;

/// A page that asks first: programs open links, too. The token is one that was read, so nothing in it needs escaping.
pub(super) fn ask(token: &str) -> HttpBody {
    page(&format!(
        "<p>Shall you get no more mails of this kind? In the product you are told all the same.</p>\n\
         <form method=\"post\" action=\"/v1/notifications:unsubscribe?token={token}\"><button>No more of these mails</button></form>"
    ))
}

/// A page that says that it is done.
pub(super) fn done() -> HttpBody {
    page("<p>You will get no more mails of this kind.</p>")
}

fn page(body: &str) -> HttpBody {
    let html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Mails</title></head>\n\
         <body style=\"font-family: sans-serif; max-width: 40em; margin: 3em auto\">\n{body}\n</body></html>\n"
    );
    HttpBody {
        content_type: "text/html; charset=utf-8".to_owned(),
        data: html.into_bytes().into(),
        extensions: Vec::new(),
    }
}
