//! The catalogue of permissions, as it was handed in. What is in it and which system roles hold it, the contract says.

use diesel::sql_types::{Array, Jsonb, Text};
use diesel_async::RunQueryDsl;
use serde_json::{Value, json};
use virtualstack_model::Result;
use virtualstack_model::iam::permission::Permission;

use crate::tx::SystemTx;
use crate::tx::error::from_diesel;

/// Brings in what is new, and makes what is known say what it says now.
const PUT: &str = "INSERT INTO iam.permissions AS known (code, title, description, module, roles) \
    SELECT code, title, description, module, roles \
    FROM jsonb_to_recordset($1) AS t (code text, title text, description text, module text, roles text[]) ORDER BY code \
    ON CONFLICT (code) DO UPDATE SET title = excluded.title, description = excluded.description, \
        module = excluded.module, roles = excluded.roles \
    WHERE (known.title, known.description, known.module, known.roles) \
        IS DISTINCT FROM (excluded.title, excluded.description, excluded.module, excluded.roles)";

/// Takes what is no permission any more out of every role. Whoever was let in for that is decided anew.
const TAKE_OUT_OF_ROLES: &str = "WITH gone AS (DELETE FROM iam.tenant_role_permissions WHERE permission <> ALL ($1) \
        RETURNING tenant_id) \
    UPDATE iam.tenants SET authz_epoch = authz_epoch + 1 WHERE id IN (SELECT tenant_id FROM gone)";

const TAKE_OUT: &str = "DELETE FROM iam.permissions WHERE code <> ALL ($1)";

/// Makes the catalogue what is handed in. A code that is not in it any more goes out of all roles, custom ones included;
/// API keys keep the word and can do nothing by it. A migration that renames a code gives the new one to the holders of the
/// old one beforehand.
pub async fn replace(tx: &mut SystemTx, catalogue: &[Permission]) -> Result<()> {
    let rows = catalogue.iter().map(|Permission { code, title, description, module, roles }| {
        json!({"code": code, "title": title, "description": description, "module": module, "roles": roles})
    });
    let put = diesel::sql_query(PUT).bind::<Jsonb, _>(Value::from_iter(rows));
    put.execute(tx.connection()?).await.map_err(from_diesel)?;
    let codes: Vec<_> = catalogue.iter().map(|permission| permission.code).collect();
    for statement in [TAKE_OUT_OF_ROLES, TAKE_OUT] {
        let gone = diesel::sql_query(statement).bind::<Array<Text>, _>(codes.clone());
        gone.execute(tx.connection()?).await.map_err(from_diesel)?;
    }
    Ok(())
}
