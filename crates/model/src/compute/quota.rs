//! Quotas: what a tenant may have at most, and what it has.

use serde::{Deserialize, Serialize};

use crate::error::Excess;
use crate::{Error, Result};

macro_rules! counted {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)+) => {
        /// An amount of each thing that a quota counts.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Amounts {
            $($(#[$doc])* pub $field: i64,)+
        }

        /// What a tenant may have at most; none is unlimited.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Limits {
            $($(#[$doc])* pub $field: Option<i64>,)+
        }

        impl Amounts {
            /// What has to be added to `before` to come here.
            #[must_use]
            pub const fn since(&self, before: &Self) -> Self {
                Self { $($field: self.$field - before.$field,)+ }
            }

            /// This and more.
            #[must_use]
            pub const fn with(&self, more: &Self) -> Self {
                Self { $($field: self.$field + more.$field,)+ }
            }
        }

        impl Limits {
            /// Refuses growth past a limit; what does not grow may stay above one. `asked` is in `used` already.
            pub fn check(&self, used: &Amounts, asked: &Amounts) -> Result<()> {
                let mut excesses = Vec::new();
                $(if let Some(limit) = self.$field
                    && asked.$field > 0
                    && used.$field > limit
                {
                    let (used, asked) = (used.$field - asked.$field, asked.$field);
                    excesses.push(Excess { name: $name, limit, used, asked });
                })+
                if excesses.is_empty() { Ok(()) } else { Err(Error::quota(excesses)) }
            }
        }
    };
}

counted! {
    /// Virtual machines.
    vms = "vms",
    /// Virtual CPUs.
    vcpus = "vcpus",
    /// Memory in MiB.
    memory_mib = "memoryMib",
    /// Disks in GiB.
    disk_gib = "diskGib",
    /// Snapshots.
    snapshots = "snapshots",
    /// Templates of the tenant's own.
    templates = "templates",
    /// Their size in bytes.
    template_bytes = "templateBytes",
}

impl Amounts {
    /// Nothing of anything.
    pub const NONE: Self =
        Self { vms: 0, vcpus: 0, memory_mib: 0, disk_gib: 0, snapshots: 0, templates: 0, template_bytes: 0 };

    /// One snapshot.
    pub const SNAPSHOT: Self = Self { snapshots: 1, ..Self::NONE };

    /// Whether there is none of anything.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_growth_past_a_limit_is_refused() {
        let limits = Limits { vms: Some(2), vcpus: Some(4), ..Limits::default() };
        let used = Amounts { vms: 3, vcpus: 4, memory_mib: 1 << 40, ..Amounts::default() };
        assert!(limits.check(&used, &Amounts { vcpus: 4, memory_mib: 1 << 40, ..Amounts::default() }).is_ok());
        let error = limits.check(&used, &Amounts { vms: 1, vcpus: 1, ..Amounts::default() }).expect_err("refused");
        let Error::QuotaExceeded { excesses, .. } = error else { panic!("{error}") };
        assert_eq!(excesses, [Excess { name: "vms", limit: 2, used: 2, asked: 1 }]);
    }
}
