//! Sends a SELECT so often over so many connections, one in flight on each: `select-bench SOCKETS CONNECTIONS COUNT SQL`.
//! Whoever starts it measures PostgreSQL.

use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [sockets, connections, count, sql] = arguments.as_slice() else {
        return Err("usage: select-bench SOCKETS CONNECTIONS COUNT SQL".into());
    };
    let count: u32 = count.parse()?;
    let url = format!("host={sockets} user=postgres dbname=virtualstack application_name=select-bench");
    let mut tasks = Vec::new();
    for _ in 0..connections.parse()? {
        let (url, sql) = (url.clone(), sql.clone());
        tasks.push(tokio::spawn(async move {
            let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
            let driven = tokio::spawn(connection);
            let select = client.prepare(&sql).await?;
            for _ in 0..count {
                client.query(&select, &[]).await?;
            }
            drop((client, select));
            let _ = driven.await;
            Ok::<_, tokio_postgres::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}
