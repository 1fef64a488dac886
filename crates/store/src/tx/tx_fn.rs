//! The bound of what is done in a transaction.

use std::future::Future;

/// What a transaction does: an async closure that may be called again, whose future can move between threads.
///
/// `AsyncFn` alone cannot say that the future is `Send`, so the bound stands beside it in every signature; the
/// implementation covers each closure, and nobody writes one.
pub trait TxFn<A, R>: AsyncFn(A) -> R + Fn(A) -> <Self as TxFn<A, R>>::Fut + Send + Sync {
    /// Its future.
    type Fut: Future<Output = R> + Send;
}

impl<F, A, R, Fut> TxFn<A, R> for F
where
    F: AsyncFn(A) -> R + Fn(A) -> Fut + Send + Sync,
    Fut: Future<Output = R> + Send,
{
    type Fut = Fut;
}
