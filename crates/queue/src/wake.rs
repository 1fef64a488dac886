//! LISTEN on a connection of its own, for whoever also gets by without it.

use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

/// A notification, as its channel and its payload.
pub type Notification<'n> = (&'n str, &'n str);

/// Tells `on` of every notification on `channels`, and once without one after each (re)connect, for what came in between.
pub async fn listen(
    url: &str,
    channels: &[&str],
    stop: CancellationToken,
    mut on: impl FnMut(Option<Notification<'_>>) + Send,
) {
    while !stop.is_cancelled() {
        let listening = tokio::select! {
            () = stop.cancelled() => return,
            listening = listen_once(url, channels, &mut on) => listening,
        };
        if let Err(error) = listening {
            tracing::debug!(%error, ?channels, "not listening; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn listen_once(
    url: &str,
    channels: &[&str],
    on: &mut (impl FnMut(Option<Notification<'_>>) + Send),
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    connection.batch_execute(&format!("LISTEN {}", channels.join("; LISTEN "))).await?;
    // Registered first, then one look: nothing that came in between is lost.
    on(None);
    loop {
        {
            let mut notifications = std::pin::pin!(connection.notifications_stream());
            // The stream does not end when the connection does, so a quiet minute is ended by a question.
            while let Ok(Some(notification)) = tokio::time::timeout(Duration::from_secs(15), notifications.next()).await
            {
                let notification = notification?;
                on(Some((&notification.channel, &notification.payload)));
            }
        }
        tokio::time::timeout(Duration::from_secs(15), connection.batch_execute("SELECT 1")).await??;
    }
}
