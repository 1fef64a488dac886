//! What must work without the API: roles and schema, the first admin, a lost password, signing keys.

use std::io::Write as _;

use anyhow::{Context as _, bail};
use virtualstack_postgres::PrivatePostgres;
use virtualstack_server::{FirstAdmin, HashCost, bootstrap, reset_password, rotate_keys, update_permissions};
use virtualstack_store::Store;
use virtualstack_store::schema::migrate;
use virtualstack_worker::notifications::mail_preview::{Language, MAILS, preview};

use crate::cli::{AdminCommand, KeysCommand};
use crate::config::Config;
use crate::data_folder::read_master_key;
use crate::up::{DATABASE, random_password};

/// Prints the script that makes the database roles.
pub(crate) fn print_roles() -> anyhow::Result<()> {
    say(migrate::ROLES)
}

/// Brings roles, schema and permissions up to date.
pub(crate) async fn migrate(config: Config) -> anyhow::Result<()> {
    let database = config.required_database()?;
    let ran = migrate::run(database.migrate_url()).await.context("cannot migrate")?;
    update_permissions(&Store::new(database)?).await.context("cannot update the permissions")?;
    tracing::info!(?ran, "the schema is up to date");
    Ok(())
}

/// Prints a mail with made-up contents, or which mails there are.
fn preview_mail(config: &Config, mail: Option<&str>, language: &str, html: bool) -> anyhow::Result<()> {
    let Some(mail) = mail else { return say(&format!("{}\n", MAILS.join("\n"))) };
    let known = || format!("one of {}", Language::WORDS.join(", "));
    let language =
        Language::from_word(language).with_context(|| format!("--language {language:?} is not {}", known()))?;
    let message = preview(mail, language, config.mail.link_base.trim_end_matches('/'))?;
    let message = message.with_context(|| format!("{mail:?} is not one of {}", MAILS.join(", ")))?;
    if html {
        return say(&message.html);
    }
    say(&format!("To: {}\nSubject: {}\n\n{}", message.to, message.subject, message.text))
}

/// Runs an admin command.
pub(crate) async fn run(mut config: Config, command: AdminCommand) -> anyhow::Result<()> {
    if let AdminCommand::MailPreview { mail, language, html } = &command {
        return preview_mail(&config, mail.as_deref(), language, *html);
    }
    // An `up` that runs has a database of its own.
    if config.database.url.is_empty()
        && let Some(socket) = PrivatePostgres::find(&config.data_dir())
    {
        config.database.url = socket.url("virtualstack_login", DATABASE);
    }
    if config.database.url.is_empty() {
        let no_up = format!("is required, as no `up` runs on {}", config.data_dir().display());
        return Err(config.wrong("database.url", no_up).into());
    }
    let database = config.required_database()?;
    migrate::check(database).await?;
    let store = Store::new(database)?;
    match command {
        AdminCommand::FirstAdmin => {
            let missing = |key: &str| config.wrong(key, "is required");
            let email = config.admin.email.clone().ok_or_else(|| missing("admin.email"))?;
            let password = config.admin.password.clone().ok_or_else(|| missing("admin.password"))?;
            let admin = FirstAdmin { email, password, demo_tenant: None };
            if bootstrap(&store, &admin, HashCost::default()).await? {
                return say("The provider tenant has its first admin.\n");
            }
            say("There is a first admin already: address and password are not used. \
                 Another password: virtualstack admin reset-password EMAIL\n")
        }
        AdminCommand::ResetPassword { email } => {
            let made = random_password()?;
            let password = config.admin.password.as_ref().unwrap_or(&made);
            if !reset_password(&store, &email, password, HashCost::default()).await? {
                bail!("there is no account of the address {email}");
            }
            match &config.admin.password {
                Some(_) => say(&format!("{email} has the password of {}.\n", config.name("admin.password"))),
                None => say(&format!("{email} has the password {made}   (made now, and shown only now)\n")),
            }
        }
        // It needs no database, so it was done above.
        AdminCommand::MailPreview { .. } => Ok(()),
        AdminCommand::Keys(KeysCommand::Rotate { revoke_old }) => {
            let master_key =
                match config.master_key()?.map_or_else(|| read_master_key(&config.data_dir()), |key| Ok(Some(key)))? {
                    Some(key) => key,
                    None => config.required_master_key()?,
                };
            let rotated = rotate_keys(&store, &master_key, &config.server, revoke_old).await;
            rotated.context("cannot rotate the signing keys")?;
            tracing::info!(revoke_old, "there is a new signing key; servers use it within seconds");
            Ok(())
        }
    }
}

/// Says what the command is for.
fn say(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to the standard output")
}
