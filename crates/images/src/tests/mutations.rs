//! Files that are changed at random: whatever is found, nothing panics, and all come to an end.

use fastrand::Rng;

use super::inspect;
use crate::make::{Flavour, Iso, Ova, SparseDisk, pack};
use crate::{Format, ImageFault};

const ROUNDS: usize = 3000;
const NASTY: [u64; 6] = [0, 1, 0x7fff_ffff, 0xffff_ffff, 0x8000_0000_0000_0000, u64::MAX];

fn change(bytes: &mut Vec<u8>, random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        let at = place(bytes, random);
        let end = (at + random.usize(1..200)).min(bytes.len());
        match random.u8(0..7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.extend_from_within(at..end),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => {
                let number = random.choice(NASTY).unwrap_or_default().to_le_bytes();
                for (byte, new) in bytes[at..end].iter_mut().zip(number) {
                    *byte = new;
                }
            }
            5 if at < end => bytes[at] ^= 1 << random.u8(0..8),
            _ if at < end => bytes[at] = random.u8(..),
            _ => {}
        }
    }
}

/// Zeros are many and say little.
fn place(bytes: &[u8], random: &mut Rng) -> usize {
    let tries = (0..20).map(|_| random.usize(0..bytes.len().max(1))).collect::<Vec<_>>();
    tries.iter().copied().find(|at| bytes.get(*at).is_some_and(|byte| *byte != 0)).unwrap_or_default().min(bytes.len())
}

/// The faults, of which each can be shown.
fn faults(format: Format, bytes: &[u8], random: &mut Rng) -> Vec<ImageFault> {
    let faults = inspect(format, bytes, || random.usize(1..20_000)).err();
    let faults = faults.map(|faults| faults.faults).unwrap_or_default();
    assert!(faults.iter().all(|fault| fault.to_string().len() < 5000));
    faults
}

#[test]
fn changed_members_end_in_faults_or_pass() {
    let mut random = Rng::with_seed(5);
    let disks = vec![SparseDisk::new(1 << 20).with(2, b"x")];
    let ovas = Flavour::ALL.map(|flavour| Ova { disks: disks.clone(), ..Ova::new(flavour) });
    let packed = Ova { gzip: true, chunk_size: Some(900), manifest_last: true, ..ovas[0].clone() };
    let all: Vec<_> = ovas.into_iter().chain([packed]).map(|ova| ova.members()).collect();
    let mut refused = 0;
    for round in 0..ROUNDS {
        let mut members = all[round % all.len()].clone();
        let index = random.usize(0..members.len());
        change(&mut members[index].bytes, &mut random);
        let mut bytes = pack(&members);
        if round % 4 == 0 {
            change(&mut bytes, &mut random);
        }
        refused += usize::from(!faults(Format::Ova, &bytes, &mut random).is_empty());
    }
    // A manifest sees nearly all of them.
    assert!(refused > ROUNDS * 9 / 10, "{refused}");
}

#[test]
fn changed_isos_end_in_faults_or_pass() {
    let mut random = Rng::with_seed(6);
    let iso = Iso { bootable: true, udf: true, ..Iso::new("SMALL") }.bytes();
    let mut refused = 0;
    for _ in 0..ROUNDS {
        let mut bytes = iso.clone();
        change(&mut bytes, &mut random);
        refused += usize::from(!faults(Format::Iso, &bytes, &mut random).is_empty());
    }
    assert!(refused > ROUNDS / 10, "{refused}");
}
