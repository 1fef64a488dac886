//! Powers a VM off: the guest is asked to shut down and given time, where that is wished; then the power is cut, or it is a
//! failure. A part of the workflows that need a VM off.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use virtualstack_model::compute::jobs::Graceful;
use virtualstack_model::compute::vm::PowerState;
use virtualstack_store::compute::vms::Vm;

use super::{ask, hypervisor, vanished, wait_or};
use crate::adapters::hypervisor::TaskRef;
use crate::compute::vm_fault::{StepError, VmFault};
use crate::engine::context::{Committed, StepContext, Transition};
use crate::engine::step_error::{code, failure};

/// Where it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub(crate) enum PowerDown {
    Ask,
    /// The guest has time until then.
    Await {
        until: DateTime<Utc>,
    },
    /// The power is cut.
    Cut {
        task: Option<TaskRef>,
    },
}

impl PowerDown {
    /// Where it begins.
    pub(super) fn first(graceful: Option<Graceful>) -> Self {
        graceful.map_or(Self::Cut { task: None }, |_| Self::Ask)
    }

    /// Name of the step.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Ask => "ask_guest",
            Self::Await { .. } => "await_guest",
            Self::Cut { .. } => "power_off",
        }
    }

    /// The task that may be at work.
    pub(super) fn task(&self) -> Option<TaskRef> {
        match self {
            Self::Ask | Self::Await { .. } => None,
            Self::Cut { task } => task.clone(),
        }
    }
}

/// Goes on with it: `again` is the step that it stands in, `off` what comes when the VM is off.
pub(super) async fn step<S>(
    context: &StepContext<'_>,
    vm: &Vm,
    graceful: Option<Graceful>,
    at: PowerDown,
    again: impl Fn(PowerDown) -> S + Send,
    off: S,
) -> Result<Committed<S>, StepError>
where
    S: Serialize + Send + Sync,
{
    let hypervisor = hypervisor(context, vm)?;
    let Graceful { timeout_seconds, power_off } = graceful.unwrap_or_default();
    let unless_cut = |reason, message: String| match power_off {
        true => Ok(again(PowerDown::Cut { task: None })),
        false => Err(StepError::Fail(failure(code::FAILED_PRECONDITION, reason, message))),
    };
    match at {
        PowerDown::Ask => match ask(context, hypervisor.ask_to_shut_down(vm.id)).await {
            Ok(()) => {
                let until = context.now() + TimeDelta::seconds(timeout_seconds.into());
                Ok(context.next(again(PowerDown::Await { until })).await?)
            }
            Err(StepError::Own(VmFault::Guest(failure))) => {
                Ok(context.next(unless_cut(NO_TOOLS, failure.message)?).await?)
            }
            Err(error) => Err(error),
        },
        PowerDown::Await { until } => {
            let seen = ask(context, hypervisor.observe_vm(vm.id)).await?;
            let Some(seen) = seen else {
                return Err(vanished());
            };
            let next = match seen.power {
                PowerState::Off => off,
                PowerState::Paused => {
                    let message =
                        "a suspended guest cannot be asked to shut down; start the VM first, or cut its power";
                    unless_cut(NO_TOOLS, message.to_owned())?
                }
                PowerState::On if context.now() < until => {
                    // A guest takes seconds at least.
                    let pause = context.within(context.task_poll() * 4);
                    let later = Transition::Wait(again(PowerDown::Await { until }), pause);
                    return Ok(context.commit_step(later, async |_| Ok(())).await?);
                }
                PowerState::On => {
                    let message = format!("the guest did not shut down in {timeout_seconds} s; the VM still runs");
                    unless_cut("GUEST_DID_NOT_SHUT_DOWN", message)?
                }
            };
            Ok(context.next(next).await?)
        }
        PowerDown::Cut { task } => {
            let progress = ask(context, hypervisor.ensure_power(vm.id, PowerState::Off, task.as_ref())).await?;
            wait_or(context, progress, |task| again(PowerDown::Cut { task }), off).await
        }
    }
}

/// Reason where the guest cannot be asked.
const NO_TOOLS: &str = "GUEST_TOOLS_UNAVAILABLE";
