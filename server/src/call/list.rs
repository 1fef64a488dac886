//! Lists: the fields that all of their requests and responses have. `build.rs` says for each message where they are.

use virtualstack_store::{ListRequest, Listed};

/// A request for a page of a list.
pub(crate) trait List {
    /// What is asked for.
    fn list(&self) -> ListRequest;
}

/// A response that is a page of a list.
pub(crate) trait Page: Sized {
    /// What is listed.
    type Item;

    /// A page of `items`.
    fn of(items: Vec<Self::Item>, next_page_token: String, total_size: Option<i32>) -> Self;
}

/// The page that rows make.
pub(crate) fn page<P: Page, T>(listed: Listed<T>, message: impl FnMut(T) -> P::Item) -> P {
    let Listed { rows, next_page_token, total_size } = listed;
    P::of(rows.into_iter().map(message).collect(), next_page_token, total_size)
}
