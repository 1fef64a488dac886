//! What an image may be at most.

/// Bounds of an inspection. What is not here, such as the length of a descriptor, nobody needs to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of the whole file.
    pub max_bytes: u64,
    /// Of an OVA's tar, the descriptor and the manifest among them.
    pub max_members: usize,
    pub max_disks: usize,
    /// Of each disk, as the VM sees it.
    pub max_capacity_bytes: u64,
    pub max_cpu_count: i32,
    pub max_memory_mib: i32,
}

impl Default for Limits {
    /// What vSphere can hold, and files of 100 GiB.
    fn default() -> Self {
        Self {
            max_bytes: 100 << 30,
            max_members: 64,
            max_disks: 16,
            max_capacity_bytes: 62 << 40,
            max_cpu_count: 768,
            max_memory_mib: 24 << 20,
        }
    }
}
