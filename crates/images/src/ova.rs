//! An OVA: what its members are, in which order they may stand, and what each has to be.

use crate::check::Check;
use crate::contents::Contents;
use crate::descriptor;
use crate::digest::{Algorithm, Sums};
use crate::fault::{Faults, Findings, Place};
use crate::image::Appliance;
use crate::limits::Limits;
use crate::manifest::{MAX_MANIFEST, Manifest};
use crate::members::{Member, Role};
use crate::tar::{Entry, Event, Tar};

/// Of a descriptor, in bytes; what vSphere writes has some 10 KiB.
const MAX_DESCRIPTOR: u64 = 2 << 20;
/// Of a certificate, in bytes; one chain with long keys is a tenth of it.
const MAX_CERTIFICATE: u64 = 64 * 1024;

/// An archive that is being read.
pub(crate) struct Ova {
    limits: Limits,
    tar: Tar,
    members: Vec<Member>,
    /// The latest member.
    member: Option<Member>,
    sums: Sums,
    /// Of the latest member, when it is read as a whole.
    text: Vec<u8>,
    appliance: Option<Appliance>,
    contents: Option<Contents>,
    manifest: Option<Manifest>,
}

impl Ova {
    pub(crate) fn new(size: u64, limits: Limits) -> Self {
        Self {
            limits,
            tar: Tar::new(size),
            members: Vec::new(),
            member: None,
            sums: Sums::new(&[]),
            text: Vec::new(),
            appliance: None,
            contents: None,
            manifest: None,
        }
    }

    /// Takes the next bytes. False: more would tell nothing new.
    pub(crate) fn feed(&mut self, mut input: &[u8], findings: &mut Findings) -> bool {
        while let Some(event) = self.tar.next(&mut input, findings) {
            match event {
                Event::Entry(entry) => self.begin(entry, findings),
                Event::Data(at, bytes) => self.data(at, bytes, findings),
                Event::End => self.end(findings),
            }
        }
        !self.tar.is_stopped()
    }

    fn begin(&mut self, entry: Entry, findings: &mut Findings) {
        let place = Place::Offset(entry.header_at);
        if self.members.len() >= self.limits.max_members {
            let most = format!("at most {} members", self.limits.max_members);
            findings.fault(Check::TooManyMembers, &entry.name, place, most, "one more");
            return self.tar.stop();
        }
        if self.members.iter().any(|member| member.entry.name == entry.name) {
            return findings.fault(Check::DuplicateMember, &entry.name, place, "each name once", "the name again");
        }
        let role = self.role(&entry, findings);
        let most = match role {
            Role::Descriptor => Some((MAX_DESCRIPTOR, Check::DescriptorSize)),
            Role::Manifest => Some((MAX_MANIFEST, Check::ManifestSyntax)),
            Role::Certificate => Some((MAX_CERTIFICATE, Check::Certificate)),
            Role::Content | Role::Stray => None,
        };
        if let Some((most, check)) = most.filter(|(most, _)| entry.size > *most) {
            findings.fault(check, &entry.name, place, format!("at most {most} bytes"), format!("{}", entry.size));
            return self.tar.stop();
        }
        self.sums = match &self.manifest {
            Some(manifest) => Sums::new(manifest.algorithm(&entry.name).as_slice()),
            // A manifest that comes last may ask for any.
            None => Sums::new(&Algorithm::ALL),
        };
        self.text.clear();
        self.member = Some(Member { entry, role, sums: Vec::new() });
    }

    fn role(&mut self, entry: &Entry, findings: &mut Findings) -> Role {
        let place = Place::Offset(entry.header_at);
        let is = |ending: &str| entry.name.to_ascii_lowercase().ends_with(ending);
        let Some(contents) = &mut self.contents else {
            if is(".ovf") {
                return Role::Descriptor;
            }
            findings.fault(Check::MemberOrder, &entry.name, place, "the descriptor (NAME.ovf) first", &entry.name);
            self.tar.stop();
            return Role::Stray;
        };
        // A descriptor may name a file that ends so, too.
        if contents.begin(entry, findings) {
            return Role::Content;
        }
        if is(".mf") {
            if self.manifest.is_none() {
                return Role::Manifest;
            }
            findings.fault(Check::MemberOrder, &entry.name, place, "one manifest", "another one");
            return Role::Stray;
        }
        if is(".cert") {
            if self.manifest.is_none() {
                let expected = "the manifest before its certificate";
                findings.fault(Check::Certificate, &entry.name, place, expected, "none");
            }
            return Role::Certificate;
        }
        findings.fault(Check::UnreferencedMember, &entry.name, place, "files of References", &entry.name);
        Role::Stray
    }

    fn data(&mut self, at: u64, bytes: &[u8], findings: &mut Findings) {
        let Some(member) = &self.member else { return };
        self.sums.update(bytes);
        match (member.role, &mut self.contents) {
            (Role::Content, Some(contents)) => contents.feed(at, bytes, findings),
            (Role::Content | Role::Stray, _) => {}
            _ => self.text.extend_from_slice(bytes),
        }
    }

    fn end(&mut self, findings: &mut Findings) {
        let Some(mut member) = self.member.take() else { return };
        member.sums = std::mem::replace(&mut self.sums, Sums::new(&[])).finish();
        let text = std::mem::take(&mut self.text);
        let name = member.entry.name.as_str();
        match member.role {
            Role::Descriptor => match descriptor::read(name, text, &self.limits, findings) {
                Some(envelope) => {
                    self.appliance = Some(envelope.appliance);
                    self.contents = Some(Contents::new(name, envelope.files));
                }
                // Nobody knows what the other members are.
                None => self.tar.stop(),
            },
            Role::Manifest => self.manifest = Some(Manifest::read(name, &text, findings)),
            Role::Certificate => certificate(&member.entry, &text, findings),
            Role::Content | Role::Stray => {}
        }
        self.members.push(member);
    }

    /// What the archive holds, or what is wrong with it. `done`: it was not read to its end.
    pub(crate) fn finish(mut self, done: bool, mut findings: Findings) -> Result<Appliance, Faults> {
        if !done {
            self.tar.finish(&mut findings);
        }
        if !done && !self.tar.is_stopped() {
            if let Some(contents) = &mut self.contents {
                contents.finish(&mut findings);
            }
            match &self.manifest {
                Some(manifest) => manifest.compare(&self.members, &mut findings),
                None => {
                    findings.warn("there is no manifest that would tell whether the files arrived as they were sent")
                }
            }
        }
        let Some((mut appliance, contents)) = self.appliance.zip(self.contents) else {
            if findings.is_good() {
                findings.fault(Check::NotAnOva, "", Place::Nowhere, "a descriptor", "none");
            }
            return findings.settle().map(|_| Appliance::default());
        };
        appliance.warnings = findings.settle()?;
        for disk in &mut appliance.disks {
            disk.parts = contents.parts(&disk.file_id);
        }
        Ok(appliance)
    }
}

/// A certificate is not verified: who may sign is nothing that is known here.
fn certificate(entry: &Entry, text: &[u8], findings: &mut Findings) {
    const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
    if text.windows(BEGIN.len()).any(|window| window == BEGIN) {
        return findings.warn("the certificate was not verified");
    }
    let expected = "-----BEGIN CERTIFICATE-----";
    findings.fault(Check::Certificate, &entry.name, Place::Offset(entry.at), expected, "something else");
}
