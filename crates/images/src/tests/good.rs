//! What good files say.

use super::{at_once, inspect};
use crate::make::{Flavour, Iso, Member, Ova, SparseDisk, Sum, pack};
use crate::{Appliance, Compression, Format, Guest, Image, Medium};

fn appliance(ova: &Ova) -> Appliance {
    let bytes = ova.bytes();
    let image = at_once(Format::Ova, &bytes).unwrap_or_else(|faults| panic!("{ova:?}: {faults}"));
    let mut random = fastrand::Rng::with_seed(2);
    for most in [600, 70_000] {
        let again = inspect(Format::Ova, &bytes, || random.usize(1..most));
        assert_eq!(again, Ok(image.clone()));
    }
    match image {
        Image::Ova(appliance) => appliance,
        Image::Iso(_) => panic!("an ISO"),
    }
}

#[test]
fn each_flavour_passes() {
    for flavour in Flavour::ALL {
        let ova = Ova::new(flavour);
        let appliance = appliance(&ova);
        assert_eq!(appliance.descriptor, ova.descriptor());
        assert_eq!((appliance.cpu_count, appliance.memory_mib), (2, 1024), "{flavour:?}");
        assert_eq!(appliance.name.as_deref(), Some("small"));
        assert_eq!(appliance.networks, ["NAT"]);
        assert_eq!(appliance.disks.len(), 1);
        let disk = &appliance.disks[0];
        assert_eq!((disk.file_id.as_str(), disk.href.as_str()), ("file1", "small-disk1.vmdk"));
        assert_eq!((disk.capacity_bytes, disk.compression), (64 << 20, Compression::None));
        let part = disk.parts[0];
        let (from, to) = (usize::try_from(part.offset).expect("small"), usize::try_from(part.size).expect("small"));
        assert_eq!(ova.bytes()[from..from + to], ova.members()[2].bytes);
    }
}

#[test]
fn a_guest_is_told_and_what_is_not_of_vsphere() {
    let of_vmware = appliance(&Ova::new(Flavour::VMware));
    let description = "Ubuntu Linux (64-bit)".to_owned();
    assert_eq!(of_vmware.guest, Guest { vmware_id: Some("ubuntu64Guest".to_owned()), cim_id: Some(94), description });
    assert_eq!(of_vmware.hardware_version.as_deref(), Some("vmx-19"));
    assert_eq!(of_vmware.warnings, Vec::<String>::new());
    let of_virtualbox = appliance(&Ova::new(Flavour::VirtualBox));
    assert_eq!(of_virtualbox.guest.vmware_id, None);
    assert_eq!(of_virtualbox.warnings, ["the hardware family virtualbox-2.2 is none of vSphere"]);
}

#[test]
fn every_packing_passes() {
    for (index, manifest) in [None, Some(Sum::Sha1), Some(Sum::Sha256), Some(Sum::Sha512)].into_iter().enumerate() {
        for (chunk_size, gzip) in [(None, true), (Some(4000), false), (Some(300), true)] {
            for manifest_last in [false, true] {
                let flavour = Flavour::ALL[index];
                let certificate = manifest.is_some();
                let ova =
                    Ova { manifest, chunk_size, gzip, manifest_last, certificate, nvram: true, ..Ova::new(flavour) };
                let appliance = appliance(&ova);
                let parts = &appliance.disks[0].parts;
                assert_eq!(parts.len() > 1, chunk_size.is_some());
                assert_eq!(
                    parts.iter().all(|part| Some(part.size) <= chunk_size.map(|size| size as u64)),
                    chunk_size.is_some()
                );
                let told = |word: &str| appliance.warnings.iter().any(|warning| warning.contains(word));
                assert!(
                    told("small.nvram is no disk")
                        && told("manifest") != certificate
                        && told("certificate") == certificate
                );
            }
        }
    }
}

#[test]
fn several_disks_come_in_the_order_of_the_hardware() {
    let disks = vec![SparseDisk::new(1 << 20), SparseDisk::incompressible(200_000, 3), SparseDisk::new(40 << 30)];
    let of_three = appliance(&Ova { disks, ..Ova::new(Flavour::VMware) });
    let capacities: Vec<_> = of_three.disks.iter().map(|disk| disk.capacity_bytes).collect();
    assert_eq!(capacities, [1 << 20, 1 << 20, 40 << 30]);
}

#[test]
fn a_disk_without_file_is_blank_and_bounds_are_no_items() {
    let ova = Ova::new(Flavour::VMware);
    let mut members = ova.members();
    let bound = "<Item ovf:bound=\"max\"><rasd:InstanceID>1</rasd:InstanceID></Item></VirtualHardwareSection>";
    let text = ova.descriptor().replace(" ovf:fileRef=\"file1\"", "").replace("</VirtualHardwareSection>", bound);
    members[0].bytes = text.into_bytes();
    members.remove(1);
    match at_once(Format::Ova, &pack(&members)) {
        Ok(Image::Ova(appliance)) => {
            assert_eq!((appliance.disks, appliance.blank_disks), (Vec::new(), vec![64 << 20]));
            // Its file is there, and no disk.
            assert!(appliance.warnings.iter().any(|warning| warning.contains("not imported")));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn long_names_and_padding_pass() {
    let ova = Ova { name: "long".repeat(40), ..Ova::new(Flavour::Qemu) };
    appliance(&ova);
    let mut bytes = ova.bytes();
    bytes.resize(bytes.len().next_multiple_of(10_240), 0);
    assert!(at_once(Format::Ova, &bytes).is_ok());
    // Some programs leave the end out.
    let end = ova.bytes().len() - 1024;
    assert!(at_once(Format::Ova, &ova.bytes()[..end]).is_ok());
}

#[test]
fn a_pax_header_names_its_member() {
    let record = |text: &str| {
        let length = (text.len() + 3..).find(|length| length.to_string().len() + 1 + text.len() == *length);
        format!("{} {text}", length.expect("a length"))
    };
    let mut members = Ova::new(Flavour::VMware).members();
    let text = record(&format!("path={}\n", members[2].name)) + &record("mtime=1.5\n");
    members[2].name = "short".to_owned();
    members.insert(2, Member { name: "PaxHeaders/x".to_owned(), kind: b'x', bytes: text.into_bytes() });
    let image = at_once(Format::Ova, &pack(&members));
    assert!(image.is_ok(), "{image:?}");
}

#[test]
fn isos_say_what_they_are() {
    let iso = Iso { bootable: true, payload: vec![1; 100_000], ..Iso::new("UBUNTU 24.04") };
    for (bootable, udf) in [(false, false), (true, false), (true, true)] {
        let bytes = Iso { bootable, udf, ..iso.clone() }.bytes();
        let volume_size = bytes.len() as u64;
        let medium = Medium { label: "UBUNTU 24.04".to_owned(), volume_size, bootable, udf, warnings: Vec::new() };
        let mut random = fastrand::Rng::with_seed(4);
        assert_eq!(at_once(Format::Iso, &bytes), Ok(Image::Iso(medium.clone())));
        assert_eq!(inspect(Format::Iso, &bytes, || random.usize(1..5000)), Ok(Image::Iso(medium)));
    }
}
