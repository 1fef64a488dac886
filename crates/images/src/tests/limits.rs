//! What a file is said to be, and what it may be at most.

use crate::make::{Flavour, Ova};
use crate::{Check, Format, Inspection, Limits};

/// The first fault of an OVA under limits.
fn first(limits: Limits) -> Check {
    let bytes = Ova::new(Flavour::VMware).bytes();
    let mut inspection = Inspection::new(Format::Ova, bytes.len() as u64, limits);
    inspection.feed(&bytes);
    inspection.finish().expect_err("faults").faults[0].check
}

#[test]
fn each_limit_holds() {
    let limits = Limits::default();
    assert_eq!(first(Limits { max_bytes: 1000, ..limits.clone() }), Check::TooLarge);
    assert_eq!(first(Limits { max_members: 2, ..limits.clone() }), Check::TooManyMembers);
    assert_eq!(first(Limits { max_disks: 0, ..limits.clone() }), Check::TooManyDisks);
    assert_eq!(first(Limits { max_capacity_bytes: (64 << 20) - 1, ..limits.clone() }), Check::CapacityLimit);
    assert_eq!(first(Limits { max_cpu_count: 1, ..limits.clone() }), Check::CpuCount);
    assert_eq!(first(Limits { max_memory_mib: 1023, ..limits }), Check::MemorySize);
}

#[test]
fn a_file_has_the_size_that_it_is_said_to_have() {
    let bytes = Ova::new(Flavour::VMware).bytes();
    for (size, fed) in [(bytes.len() - 1, bytes.len()), (bytes.len() + 1, bytes.len()), (bytes.len(), 5000)] {
        for format in [Format::Ova, Format::Iso] {
            let mut inspection = Inspection::new(format, size as u64, Limits::default());
            if format == Format::Iso {
                // An ISO is not read to its end.
                inspection.feed(&bytes[..fed.min(1000)]);
            } else {
                inspection.feed(&bytes[..fed]);
            }
            let faults = inspection.finish().expect_err("faults");
            assert_eq!(faults.faults[0].check, Check::SizeMismatch, "{faults}");
        }
    }
}

#[test]
fn a_disk_of_the_largest_capacity_is_read() {
    // Its tables are more than are told apart; its directory alone has eight MiB.
    let disk = crate::make::SparseDisk::new(62 << 40).with(7, b"x").vmdk();
    let mut vmdk = crate::vmdk::Vmdk::new(62 << 40);
    for piece in disk.chunks(1 << 16) {
        vmdk.feed(piece);
    }
    assert_eq!(vmdk.finish(), None);
}
