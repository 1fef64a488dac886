//! LISTEN on a connection of its own, for whoever also gets by without it.

use std::time::Duration;

use diesel_async::{AsyncConnection, AsyncPgConnection, SimpleAsyncConnection};
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

/// Tells `on` of every notification on `channel`, and once without one after each (re)connect, for what came in between.
pub async fn listen(url: &str, channel: &str, stop: CancellationToken, mut on: impl FnMut(Option<&str>) + Send) {
    while !stop.is_cancelled() {
        let listening = tokio::select! {
            () = stop.cancelled() => return,
            listening = listen_once(url, channel, &mut on) => listening,
        };
        if let Err(error) = listening {
            tracing::debug!(%error, channel, "not listening; trying again");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

async fn listen_once(
    url: &str,
    channel: &str,
    on: &mut (impl FnMut(Option<&str>) + Send),
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut connection = AsyncPgConnection::establish(url).await?;
    connection.batch_execute(&format!("LISTEN {channel}")).await?;
    // Registered first, then one look: nothing that came in between is lost.
    on(None);
    loop {
        {
            let mut notifications = std::pin::pin!(connection.notifications_stream());
            // The stream does not end when the connection does, so a quiet minute is ended by a question.
            while let Ok(Some(notification)) = tokio::time::timeout(Duration::from_secs(15), notifications.next()).await
            {
                on(Some(&notification?.payload));
            }
        }
        tokio::time::timeout(Duration::from_secs(15), connection.batch_execute("SELECT 1")).await??;
    }
}
