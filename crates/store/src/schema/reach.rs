//! Whether a database can be reached and worked with, in words for whoever has to mend it: what stands in the way, and what to
//! do about it. Clients are told less.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::config::{Config as Target, Host};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use virtualstack_model::{Error, Result};

/// How long a database may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(10);

/// Whether a connection string is one; the text says what is wrong with it, and shows nothing of it.
pub fn check_url(url: &str) -> Result<(), String> {
    const LIKE: &str = "must be like postgres://USER:PASSWORD@HOST:PORT/DATABASE, or host=… user=… dbname=…";
    match url.parse::<Target>() {
        Err(error) => Err(format!("{LIKE}; {}", error.source().map_or_else(|| error.to_string(), ToString::to_string))),
        Ok(target) if target.get_hosts().is_empty() => Err(format!("{LIKE}; it names no host")),
        Ok(_) => Ok(()),
    }
}

/// Connects; who cannot is told why.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let wrong = |error: tokio_postgres::Error| Error::precondition("WRONG_SETTING", "database.url", error.to_string());
    let target: Target = url.parse().map_err(wrong)?;
    let place = place(url)?;
    match tokio::time::timeout(PATIENCE, target.connect(NoTls)).await {
        Ok(Ok((client, connection))) => {
            tokio::spawn(connection);
            Ok(client)
        }
        Ok(Err(error)) => Err(why(&target, &place, &error)),
        Err(_) => Err(unreachable(&place, &format!("no answer within {} s", PATIENCE.as_secs()))),
    }
}

/// Where a connection string leads: hosts and ports, or the folder of a socket.
pub(crate) fn place(url: &str) -> Result<String> {
    let target: Target =
        url.parse().map_err(|_| Error::precondition("WRONG_SETTING", "database.url", "it is no connection string"))?;
    let ports = target.get_ports();
    let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
    let places = target.get_hosts().iter().enumerate().map(|(index, host)| match host {
        Host::Tcp(name) => format!("{name}:{}", port(index)),
        Host::Unix(folder) => format!("{}/.s.PGSQL.{}", folder.display(), port(index)),
    });
    Ok(places.collect::<Vec<_>>().join(", "))
}

fn unreachable(place: &str, why: &str) -> Error {
    Error::unavailable(
        "DATABASE_UNREACHABLE",
        format!("the database is not reachable at {place}: {why}"),
        why.to_owned(),
    )
}

/// What the server, or the system, says.
pub(crate) fn refusal(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |refusal| refusal.message().to_owned())
}

/// Why somebody does not get in.
fn why(target: &Target, place: &str, error: &tokio_postgres::Error) -> Error {
    let user = target.get_user().unwrap_or_default();
    let database = target.get_dbname().unwrap_or(user);
    let refused = |text: String| Error::precondition("DATABASE_REFUSES", place, text);
    let Some(code) = error.code() else {
        let mut source = error.source();
        while let Some(cause) = source {
            if cause.is::<std::io::Error>() {
                return unreachable(place, &cause.to_string());
            }
            source = cause.source();
        }
        let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        return match text.as_str() {
            "password missing" => refused(format!(
                "the database at {place} asks user {user} for a password, and the connection string has none"
            )),
            _ => refused(format!("the database at {place} cannot be talked to: {error}: {text}")),
        };
    };
    let said = refusal(error);
    let known: [(&SqlState, String); 7] = [
        (
            &SqlState::INVALID_PASSWORD,
            format!("the database at {place} refuses the password of user {user}; correct it in the connection string"),
        ),
        (
            &SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
            format!(
                "the database at {place} does not let user {user} in ({said}); make the user, or allow it in pg_hba.conf"
            ),
        ),
        (
            &SqlState::INVALID_CATALOG_NAME,
            format!("there is no database {database} at {place}; let an administrator run: CREATE DATABASE {database}"),
        ),
        (
            &SqlState::INSUFFICIENT_PRIVILEGE,
            format!(
                "user {user} lacks a right on database {database} at {place} ({said}); let an administrator grant it: \
                 the script of `virtualstack migrate --print-roles` has all"
            ),
        ),
        // The role that we connect in.
        (
            &SqlState::INVALID_PARAMETER_VALUE,
            format!("the database at {place} lacks our roles or schema ({said}); run: virtualstack migrate"),
        ),
        (
            &SqlState::TOO_MANY_CONNECTIONS,
            format!(
                "the database at {place} has no connection left ({said}); raise its max_connections, or lower ours"
            ),
        ),
        (&SqlState::CANNOT_CONNECT_NOW, format!("the database at {place} takes no connections now: {said}")),
    ];
    match known.into_iter().find(|(known, _)| **known == *code) {
        Some((_, text)) => refused(text),
        None => refused(format!("the database at {place} refuses user {user}: {said} ({})", code.code())),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// What is said of a server that answers a connection with this error.
    async fn said_of(code: &str, message: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let body = format!("SFATAL\0VFATAL\0C{code}\0M{message}\0\0");
        let answer = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut asked = [0; 1024];
            let mut length = stream.read(&mut asked).await.expect("a question");
            // It may ask for TLS first.
            if length == 8 {
                stream.write_all(b"N").await.expect("an answer");
                length = stream.read(&mut asked).await.expect("a question");
            }
            assert!(length > 8);
            let size = u32::try_from(body.len() + 4).expect("short");
            stream
                .write_all(&[b"E", size.to_be_bytes().as_slice(), body.as_bytes()].concat())
                .await
                .expect("an answer");
        };
        let url = format!("postgres://ada:secret@127.0.0.1:{port}/shop");
        let (refused, ()) = tokio::join!(connect(&url), answer);
        let text = refused.map(drop).expect_err("refused").to_string();
        assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
        assert!(!text.contains("secret"), "{text}");
        text
    }

    #[tokio::test]
    async fn each_refusal_has_words_of_its_own_and_says_what_to_do() {
        for (code, message, words) in [
            ("28P01", "password authentication failed", ["refuses the password of user ada", "correct it"]),
            ("28000", "role \"ada\" does not exist", ["does not let user ada in", "role \"ada\" does not exist"]),
            ("3D000", "database \"shop\" does not exist", ["no database shop", "CREATE DATABASE shop"]),
            ("42501", "permission denied for database", ["lacks a right on database shop", "--print-roles"]),
            ("22023", "role \"virtualstack_login\" does not exist", ["schema", "run: virtualstack migrate"]),
            ("53300", "sorry, too many clients", ["no connection left", "max_connections"]),
            ("57P03", "the database system is starting up", ["no connections now", "starting up"]),
            ("XX000", "a mishap", ["refuses user ada", "a mishap (XX000)"]),
        ] {
            let text = said_of(code, message).await;
            for part in words {
                assert!(text.contains(part), "{code}: {text}");
            }
            assert!(!text.contains("not reachable"), "{text}");
        }
    }

    #[tokio::test]
    async fn only_what_does_not_answer_is_not_reachable_and_the_system_says_why() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let text =
            connect(&format!("postgres://ada@127.0.0.1:{port}/shop")).await.map(drop).expect_err("nobody").to_string();
        assert!(text.starts_with(&format!("the database is not reachable at 127.0.0.1:{port}: ")), "{text}");
        assert!(text.contains("refused"), "{text}");
        let text = connect("host=/nowhere user=ada dbname=shop").await.map(drop).expect_err("nobody").to_string();
        assert!(text.contains("/nowhere/.s.PGSQL.5432: ") && text.contains("No such file"), "{text}");
    }

    #[test]
    fn what_is_no_connection_string_is_told_and_not_shown() {
        for url in [
            "postgres//ada:secret@db/shop",
            "postgres://ada:secret@db:port/shop",
            "ada:secret",
            "user=ada password=secret",
        ] {
            let problem = check_url(url).expect_err(url);
            assert!(problem.starts_with("must be like postgres://"), "{problem}");
            assert!(!problem.contains("secret"), "{problem}");
        }
        for url in ["postgres://ada@db/shop", "host=db user=ada", "host='/srv/it\\'s a' user=ada dbname=shop"] {
            check_url(url).unwrap_or_else(|problem| panic!("{url}: {problem}"));
        }
    }
}
