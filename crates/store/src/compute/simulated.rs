//! What the simulated hypervisor remembers, on a connection of its own that sees nothing else.
//!
//! A task is a row that says when it will be finished. Whoever looks next lets the effects of finished tasks take place,
//! under one lock: so the simulation goes on across restarts, serves several workers, and needs no process of its own.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Integer, Jsonb, Nullable, Text, Uuid as SqlUuid};
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use serde_json::Value;
use uuid::Uuid;
use virtualstack_model::Result;

use crate::tx::error::{from_diesel, unavailable};
use crate::tx::store::{Config, TxFn, pool};
use crate::tx::{Connection, Ending, Leased, Opening};

/// The memory of the simulated hypervisor.
#[derive(Clone)]
pub struct Simulation {
    pool: Pool<AsyncPgConnection>,
}

/// A VM of the simulation.
#[derive(Clone, Debug, QueryableByName)]
pub struct SimulatedVm {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The operation that made it.
    #[diesel(sql_type = SqlUuid)]
    pub operation_id: Uuid,
    #[diesel(sql_type = Text)]
    pub power: String,
    #[diesel(sql_type = Integer)]
    pub cpu_count: i32,
    #[diesel(sql_type = Integer)]
    pub memory_mib: i32,
    #[diesel(sql_type = Integer)]
    pub disk_gib: i32,
    /// The medium in its drive; it has no guest to ask before something was installed, which never happens here.
    #[diesel(sql_type = Nullable<Text>)]
    pub medium: Option<String>,
    /// Address that its guest would report.
    #[diesel(sql_type = Text)]
    pub ip_address: String,
}

/// A task of the simulation.
#[derive(Clone, Debug, QueryableByName)]
pub struct SimulatedTask {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Text)]
    pub action: String,
    /// How far it is, in percent; 100 when it is finished.
    #[diesel(sql_type = Integer)]
    pub percent: i32,
    #[diesel(sql_type = Nullable<Text>)]
    pub fault: Option<String>,
}

/// A snapshot of the simulation.
#[derive(Clone, Debug, QueryableByName)]
pub struct SimulatedSnapshot {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The VM it is of.
    #[diesel(sql_type = SqlUuid)]
    pub vm_id: Uuid,
}

/// A VM of the simulation, with all that can be compared.
#[derive(Clone, Debug, QueryableByName)]
pub struct SimulatedMachine {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    #[diesel(sql_type = Text)]
    pub power: String,
    #[diesel(sql_type = Integer)]
    pub cpu_count: i32,
    #[diesel(sql_type = Integer)]
    pub memory_mib: i32,
    #[diesel(sql_type = Integer)]
    pub disk_gib: i32,
    /// How often it was reset.
    #[diesel(sql_type = Integer)]
    pub resets: i32,
    /// Our ids of its snapshots.
    #[diesel(sql_type = Array<SqlUuid>)]
    pub snapshots: Vec<Uuid>,
}

/// A template that was imported to the simulation.
#[derive(Clone, Debug, QueryableByName)]
pub struct SimulatedTemplate {
    #[diesel(sql_type = SqlUuid)]
    pub id: Uuid,
    /// The operation that imported it.
    #[diesel(sql_type = SqlUuid)]
    pub operation_id: Uuid,
    #[diesel(sql_type = Text)]
    pub name: String,
    #[diesel(sql_type = Text)]
    pub kind: String,
    #[diesel(sql_type = Text)]
    pub guest_os: String,
    #[diesel(sql_type = Integer)]
    pub cpu_count: i32,
    #[diesel(sql_type = Integer)]
    pub memory_mib: i32,
    #[diesel(sql_type = Integer)]
    pub disk_gib: i32,
    #[diesel(sql_type = Integer)]
    pub further_disk_gib: i32,
}

// Effects of all tasks whose time has come, at most one per VM since only one runs at a time.
const SETTLE: &str = "\
    WITH due AS ( \
        UPDATE simulated_hypervisor.tasks SET finished_at = finish_at \
        WHERE finished_at IS NULL AND finish_at <= now() RETURNING vm_id, action, parameters, fault \
    ), effects AS ( \
        SELECT * FROM due WHERE fault IS NULL \
    ), made AS ( \
        INSERT INTO simulated_hypervisor.vms (id, operation_id, name, template, medium, cpu_count, memory_mib, disk_gib, power, ip_address) \
        SELECT vm_id, (parameters->>'operation')::uuid, parameters->>'name', parameters->>'template', parameters->>'medium', \
            (parameters->>'cpuCount')::int, (parameters->>'memoryMib')::int, (parameters->>'diskGib')::int, 'OFF', \
            host('10.0.0.0'::inet + 256 + nextval('simulated_hypervisor.addresses')) \
        FROM effects WHERE action = 'CREATE' ON CONFLICT (id) DO NOTHING \
    ), gone AS ( \
        DELETE FROM simulated_hypervisor.vms vm USING effects WHERE vm.id = effects.vm_id AND effects.action = 'DESTROY' \
    ), kept AS ( \
        INSERT INTO simulated_hypervisor.snapshots (id, vm_id, name, cpu_count, memory_mib) \
        SELECT (parameters->>'snapshot')::uuid, vm.id, parameters->>'name', vm.cpu_count, vm.memory_mib \
        FROM effects JOIN simulated_hypervisor.vms vm ON vm.id = effects.vm_id WHERE action = 'SNAPSHOT' ON CONFLICT (id) DO NOTHING \
    ), dropped AS ( \
        DELETE FROM simulated_hypervisor.snapshots snapshot USING effects \
        WHERE effects.action = 'REMOVE_SNAPSHOT' AND snapshot.id = (effects.parameters->>'snapshot')::uuid \
    ) \
    UPDATE simulated_hypervisor.vms vm SET \
        power = CASE effects.action WHEN 'POWER_ON' THEN 'ON' WHEN 'SUSPEND' THEN 'PAUSED' \
            WHEN 'POWER_OFF' THEN 'OFF' WHEN 'SHUT_DOWN' THEN 'OFF' WHEN 'REVERT' THEN 'OFF' ELSE vm.power END, \
        resets = vm.resets + (effects.action = 'RESET')::int, \
        cpu_count = coalesce((effects.parameters->>'cpuCount')::int, \"then\".cpu_count, vm.cpu_count), \
        memory_mib = coalesce((effects.parameters->>'memoryMib')::int, \"then\".memory_mib, vm.memory_mib), \
        disk_gib = greatest((effects.parameters->>'diskGib')::int, vm.disk_gib) \
    FROM effects LEFT JOIN simulated_hypervisor.snapshots \"then\" \
        ON effects.action = 'REVERT' AND \"then\".id = (effects.parameters->>'snapshot')::uuid \
    WHERE vm.id = effects.vm_id AND effects.action NOT IN ('CREATE', 'DESTROY', 'SNAPSHOT', 'REMOVE_SNAPSHOT')";

const TASK: &str = "SELECT id, action, fault, \
    CASE WHEN finished_at IS NOT NULL THEN 100 \
         ELSE least(99, greatest(0, extract(epoch FROM now() - started_at) * 100 \
              / greatest(0.001, extract(epoch FROM finish_at - started_at))))::int END AS percent \
    FROM simulated_hypervisor.tasks WHERE ";

impl Simulation {
    /// Connects when first used.
    pub fn new(config: &Config) -> Result<Self> {
        let url = config.connect_as("virtualstack_simulator", "-c statement_timeout=10000");
        Ok(Self { pool: pool(url, 4, Duration::from_millis(config.acquire_timeout_ms))? })
    }

    /// The VM and its running task, after all finished tasks have taken effect.
    pub async fn look(&self, vm: Uuid) -> Result<(Option<SimulatedVm>, Option<SimulatedTask>)> {
        self.settled(async |connection| {
            let found = diesel::sql_query(
                "SELECT id, operation_id, power, cpu_count, memory_mib, disk_gib, medium, ip_address \
                 FROM simulated_hypervisor.vms WHERE id = $1",
            )
            .bind::<SqlUuid, _>(vm)
            .get_result(connection)
            .await
            .optional()?;
            let task = diesel::sql_query(format!("{TASK} vm_id = $1 AND finished_at IS NULL"))
                .bind::<SqlUuid, _>(vm)
                .get_result(connection)
                .await
                .optional()?;
            Ok((found, task))
        })
        .await
    }

    /// A task by its id, after all finished tasks have taken effect.
    pub async fn task(&self, id: Uuid) -> Result<Option<SimulatedTask>> {
        self.settled(async |connection| {
            diesel::sql_query(format!("{TASK} id = $1")).bind::<SqlUuid, _>(id).get_result(connection).await.optional()
        })
        .await
    }

    /// A snapshot by its id, after all finished tasks have taken effect.
    pub async fn snapshot(&self, id: Uuid) -> Result<Option<SimulatedSnapshot>> {
        self.settled(async |connection| {
            diesel::sql_query("SELECT id, vm_id FROM simulated_hypervisor.snapshots WHERE id = $1")
                .bind::<SqlUuid, _>(id)
                .get_result(connection)
                .await
                .optional()
        })
        .await
    }

    /// Stops a running task: it has no effect then. Whether it still ran.
    pub async fn cancel(&self, id: Uuid) -> Result<bool> {
        let stopped = self
            .settled(async |connection| {
                diesel::sql_query(
                    "UPDATE simulated_hypervisor.tasks SET finished_at = now(), fault = 'cancelled' \
                     WHERE id = $1 AND finished_at IS NULL",
                )
                .bind::<SqlUuid, _>(id)
                .execute(connection)
                .await
            })
            .await?;
        Ok(stopped == 1)
    }

    /// Starts a task on a VM, which has none running.
    pub async fn start(
        &self,
        vm: Uuid,
        action: &str,
        parameters: &Value,
        duration: Duration,
        fault: Option<&str>,
    ) -> Result<Uuid> {
        let id = Uuid::now_v7();
        self.settled(async |connection| {
            diesel::sql_query(
                "INSERT INTO simulated_hypervisor.tasks (id, vm_id, action, parameters, finish_at, fault) \
                 VALUES ($1, $2, $3, $4, now() + $5 * interval '1 millisecond', $6)",
            )
            .bind::<SqlUuid, _>(id)
            .bind::<SqlUuid, _>(vm)
            .bind::<Text, _>(action)
            .bind::<Jsonb, _>(parameters)
            .bind::<BigInt, _>(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
            .bind::<Nullable<Text>, _>(fault)
            .execute(connection)
            .await
        })
        .await?;
        Ok(id)
    }

    /// Every VM with its snapshots, for tests and operators who compare.
    pub async fn machines(&self) -> Result<Vec<SimulatedMachine>> {
        self.settled(async |connection| {
            diesel::sql_query(
                "SELECT id, power, cpu_count, memory_mib, disk_gib, resets, \
                    ARRAY (SELECT id FROM simulated_hypervisor.snapshots WHERE vm_id = vm.id ORDER BY id) AS snapshots \
                 FROM simulated_hypervisor.vms vm ORDER BY id",
            )
            .load(connection)
            .await
        })
        .await
    }

    /// Every template that was imported, by name.
    pub async fn templates(&self) -> Result<Vec<SimulatedTemplate>> {
        self.settled(async |connection| {
            diesel::sql_query(
                "SELECT id, operation_id, name, kind, guest_os, cpu_count, memory_mib, disk_gib, further_disk_gib \
                 FROM simulated_hypervisor.templates ORDER BY name, id",
            )
            .load(connection)
            .await
        })
        .await
    }

    /// Keeps a template, unless it is there.
    pub async fn keep_template(&self, template: &SimulatedTemplate) -> Result<()> {
        self.settled(async |connection| {
            diesel::sql_query(
                "INSERT INTO simulated_hypervisor.templates (id, operation_id, name, kind, guest_os, cpu_count, memory_mib, \
                    disk_gib, further_disk_gib) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (id) DO NOTHING",
            )
            .bind::<SqlUuid, _>(template.id)
            .bind::<SqlUuid, _>(template.operation_id)
            .bind::<Text, _>(&template.name)
            .bind::<Text, _>(&template.kind)
            .bind::<Text, _>(&template.guest_os)
            .bind::<Integer, _>(template.cpu_count)
            .bind::<Integer, _>(template.memory_mib)
            .bind::<Integer, _>(template.disk_gib)
            .bind::<Integer, _>(template.further_disk_gib)
            .execute(connection)
            .await
        })
        .await
        .map(drop)
    }

    /// Forgets a template; VMs that were made from it stay.
    pub async fn drop_template(&self, id: Uuid) -> Result<()> {
        self.settled(async |connection| {
            diesel::sql_query("DELETE FROM simulated_hypervisor.templates WHERE id = $1")
                .bind::<SqlUuid, _>(id)
                .execute(connection)
                .await
        })
        .await
        .map(drop)
    }

    async fn settled<T, F>(&self, f: F) -> Result<T>
    where
        T: Send,
        F: AsyncFn(&mut AsyncPgConnection) -> QueryResult<T> + for<'r> TxFn<&'r mut AsyncPgConnection, QueryResult<T>>,
    {
        let connection = self.pool.get().await.map_err(unavailable)?;
        let opened = Connection::open(Leased::new(connection, None), &Opening::simulator()).await;
        let mut tx = opened.map_err(|(error, _)| error)?;
        let done = async {
            diesel::sql_query(SETTLE).execute(tx.get()?).await.map_err(from_diesel)?;
            f(tx.get()?).await.map_err(from_diesel)
        }
        .await;
        match done {
            Ok(value) => tx.end(Ending::Commit).await.map(|()| value),
            Err(error) => {
                tx.rollback().await;
                Err(error)
            }
        }
    }
}
