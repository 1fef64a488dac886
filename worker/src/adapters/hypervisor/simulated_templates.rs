//! What the simulated hypervisor makes of a tenant's file: it reads it to its end, so that a store which fails is seen, and
//! keeps what is said of it.

use futures::StreamExt as _;
use virtualstack_model::compute::template::TemplateKind;
use virtualstack_store::compute::simulated::SimulatedTemplate;

use super::import::{Appliance, Attendance, Content, ImageSource, ImportSpec};
use super::{Fault, FaultClass};

/// A medium says nothing of the machine that it wants: CPUs, MiB of memory, GiB of disk.
const OF_MEDIUM: (i32, i32, i32) = (1, 1024, 10);
/// CIM's numbers of processors and memory in a descriptor.
const PROCESSORS: &str = "3";
const MEMORY: &str = "4";

/// Reads all that a real hypervisor would be sent.
pub(super) async fn read(spec: &ImportSpec, source: &dyn ImageSource, attendance: &Attendance) -> Result<(), Fault> {
    let parts = match &spec.content {
        Content::Ova(appliance) => appliance.disks.iter().flat_map(|disk| disk.parts.iter().cloned()).collect(),
        Content::Iso { size } => Vec::from([(0, *size)].map(|(start, end)| start..end)),
    };
    let total = parts.iter().map(|part| part.end.saturating_sub(part.start)).sum();
    let mut done = 0;
    attendance.report(done, total);
    for part in parts {
        let end = done + part.end.saturating_sub(part.start);
        let mut stream = source.read(part).await?;
        while let Some(piece) = stream.next().await {
            done += piece?.len() as u64;
            attendance.report(done, total);
        }
        if done != end {
            return Err(Fault::new(
                FaultClass::Retry,
                "IMAGE_UNREADABLE",
                "the file could not be read to its end; it is tried again",
                format_args!("expected {end} bytes, found {done}"),
            ));
        }
    }
    Ok(())
}

/// What is kept of it.
pub(super) fn kept(spec: &ImportSpec) -> SimulatedTemplate {
    let (kind, guest_os, (cpu_count, memory_mib), disk_gib, further_disk_gib) = match &spec.content {
        Content::Iso { .. } => {
            (TemplateKind::Iso, "Other Linux (64-bit)".to_owned(), (OF_MEDIUM.0, OF_MEDIUM.1), OF_MEDIUM.2, 0)
        }
        Content::Ova(appliance) => {
            let mut sizes = appliance.disks.iter().map(|disk| disk.capacity_bytes);
            let first = gib(sizes.next().unwrap_or_default()).max(1);
            (TemplateKind::Ova, appliance.guest_os.clone(), hardware(appliance), first, gib(sizes.sum()))
        }
    };
    SimulatedTemplate {
        id: spec.id.0,
        operation_id: spec.operation.0,
        name: spec.display_name.clone(),
        kind: kind.as_str().to_owned(),
        guest_os,
        cpu_count,
        memory_mib,
        disk_gib,
        further_disk_gib,
    }
}

/// CPUs and MiB of memory that a descriptor asks for.
fn hardware(appliance: &Appliance) -> (i32, i32) {
    let document = roxmltree::Document::parse(&appliance.descriptor);
    let quantity = |kind: &str| {
        let mut items = document.as_ref().ok()?.descendants().filter(|node| node.tag_name().name() == "Item");
        items.find_map(|item| {
            let text = |name: &str| item.children().find(|child| child.tag_name().name() == name)?.text();
            (text("ResourceType")?.trim() == kind).then(|| text("VirtualQuantity")?.trim().parse().ok())?
        })
    };
    (quantity(PROCESSORS).unwrap_or(OF_MEDIUM.0), quantity(MEMORY).unwrap_or(OF_MEDIUM.1))
}

/// Rounded up.
fn gib(bytes: u64) -> i32 {
    i32::try_from(bytes.div_ceil(1 << 30)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use virtualstack_model::compute::id::TemplateId;
    use virtualstack_model::id::{OperationId, TenantId};

    use super::super::import::DiskFile;
    use super::*;

    fn spec(descriptor: &str, capacities: &[u64]) -> ImportSpec {
        let disk = |capacity_bytes: &u64| DiskFile {
            href: "d.vmdk".to_owned(),
            capacity_bytes: *capacity_bytes,
            gzip: false,
            parts: Vec::new(),
        };
        ImportSpec {
            id: TemplateId::new(),
            tenant: TenantId::new(),
            operation: OperationId::new(),
            display_name: "debian".to_owned(),
            content: Content::Ova(Appliance {
                descriptor: descriptor.to_owned(),
                disks: capacities.iter().map(disk).collect(),
                networks: Vec::new(),
                guest_os: "Debian".to_owned(),
            }),
        }
    }

    #[test]
    fn what_is_kept_is_what_the_descriptor_says() {
        let item = |kind: i32, quantity: i32| {
            format!(
                "<Item><r:ResourceType>{kind}</r:ResourceType><r:VirtualQuantity>{quantity}</r:VirtualQuantity></Item>"
            )
        };
        let text = format!("<Envelope xmlns:r=\"r\">{}{}{}</Envelope>", item(10, 9), item(3, 4), item(4, 8192));
        let found = kept(&spec(&text, &[(10 << 30) + 1, 1 << 30, 1]));
        assert_eq!((found.cpu_count, found.memory_mib, found.disk_gib, found.further_disk_gib), (4, 8192, 11, 2));
        let found = kept(&spec("no XML", &[]));
        assert_eq!((found.cpu_count, found.memory_mib, found.disk_gib, found.further_disk_gib), (1, 1024, 1, 0));
    }
}
