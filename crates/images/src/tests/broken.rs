//! Each broken file is refused for what is wrong with it.

use std::collections::HashSet;

use super::{at_once, inspect};
use crate::Check;
use crate::make::broken;

#[test]
fn each_broken_file_is_told_from_all_others() {
    let all = broken();
    assert!(all.len() >= 40);
    let names: HashSet<_> = all.iter().map(|file| file.name).collect();
    assert_eq!(names.len(), all.len());
    let mut wrong = Vec::new();
    for file in &all {
        match at_once(file.format, &file.bytes) {
            Ok(_) => wrong.push(format!("{}: nothing was found", file.name)),
            Err(faults) if faults.faults[0].check != file.check => wrong.push(format!("{}: {faults}", file.name)),
            Err(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pieces_make_no_difference() {
    let mut random = fastrand::Rng::with_seed(1);
    for file in broken() {
        let faults = inspect(file.format, &file.bytes, || random.usize(1..70_000)).expect_err(file.name);
        assert_eq!(faults.faults[0].check, file.check, "{}: {faults}", file.name);
    }
}

#[test]
fn each_check_has_a_broken_file() {
    // What a file is said to be, and limits.
    let mut missing: HashSet<_> = Check::ALL.iter().copied().collect();
    for check in broken().into_iter().map(|file| file.check).chain([Check::SizeMismatch, Check::TooLarge]) {
        missing.remove(&check);
    }
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_fault_says_where_and_what_to_do() {
    let message = |name: &str| {
        let file = broken().into_iter().find(|file| file.name == name).expect("a name");
        at_once(file.format, &file.bytes).expect_err("faults").faults[0].to_string()
    };
    assert_eq!(
        message("a capacity that somebody chooses"),
        "small.ovf at line 8, column 5: the capacity of a Disk depends on a property (expected ovf:capacity as a number, \
         found ${disk.size}); write the capacity as a number"
    );
    assert_eq!(
        message("an unknown guest"),
        "small.ovf at line 17, column 5: the guest operating system is not known (expected a guest of vSphere, such as \
         otherGuest64, found plan9Guest); set vmw:osType of OperatingSystemSection, e.g. \"otherGuest64\""
    );
    let disk = message("an entry of a grain table");
    assert!(disk.starts_with("small-disk1.vmdk at byte "), "{disk}");
    let sum = message("a wrong SHA-256");
    assert!(sum.starts_with("small-disk1.vmdk at byte ") && sum.contains("expected SHA256 "), "{sum}");
    let iso = message("an ISO that is cut");
    assert!(iso.starts_with("the file at byte 32848: the volume is larger than the file"), "{iso}");
}

#[test]
fn several_faults_are_told_at_once() {
    let file = broken().into_iter().find(|file| file.name == "two places of one root").expect("a name");
    assert_eq!(at_once(file.format, &file.bytes).expect_err("faults").faults.len(), 1);
    let ova = crate::make::Ova::new(crate::make::Flavour::VMware);
    let text = ova.descriptor().replace(">2<", ">0<").replace(">1024<", ">0<").replace("ubuntu64Guest", "x");
    let mut members = ova.members();
    members[0].bytes = text.into_bytes();
    members.remove(2);
    let faults = at_once(crate::Format::Ova, &crate::make::pack(&members)).expect_err("faults").faults;
    let checks: Vec<_> = faults.iter().map(|fault| fault.check).collect();
    assert_eq!(
        checks,
        [
            Check::GuestId,
            Check::CpuCount,
            Check::MemorySize,
            Check::MissingMember,
            Check::DigestMismatch,
            Check::ManifestUnknownFile
        ]
    );
}
