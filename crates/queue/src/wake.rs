//! Waking up: LISTEN on a connection of its own, and a slow poll for when it is down.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures::StreamExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Tells `wake` of every notification, and once after each (re)connect, for what came in between.
pub(crate) async fn listen(url: String, wake: Arc<Notify>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let listening = tokio::select! {
            () = stop.cancelled() => return,
            listening = listen_once(&url, &wake) => listening,
        };
        if let Err(error) = listening {
            tracing::debug!(%error, "not listening for jobs; polling goes on");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn listen_once(url: &str, wake: &Notify) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    connection.batch_execute("LISTEN virtualstack_jobs").await?;
    // Registered first, then one look: nothing that came in between is lost.
    wake.notify_one();
    loop {
        {
            let mut notifications = std::pin::pin!(connection.notifications_stream());
            // The stream does not end when the connection does, so a quiet minute is ended by a question.
            while let Ok(Some(notification)) = tokio::time::timeout(Duration::from_secs(15), notifications.next()).await
            {
                notification?;
                wake.notify_one();
            }
        }
        tokio::time::timeout(Duration::from_secs(15), connection.batch_execute("SELECT 1")).await??;
    }
}
