//! What a vCenter makes of a descriptor, and what we make of that before it is imported.
//!
//! A descriptor is a tenant's: it may set anything in the configuration of the machine, and may name devices of the host. What
//! is for the provider to decide is left out, and whoever imports is told.

use std::sync::Arc;

use super::super::Fault;
use super::super::import::{Appliance, ImportSpec};
use super::faults::VimFault;
use super::import_faults::{of_call, refused};
use super::marks::template_marks;
use super::session::Session;
use super::soap::Call;
use super::xml::{Element, ManagedRef, Xml};

/// What a guest or its disks may be told by a descriptor. Other keys reach into the host: they name its files, devices and pipes.
const GUEST_KEYS: [&str; 2] = ["guestinfo.", "disk.enableuuid"];
/// Devices that are parts of a host, or files and pipes on it.
const HOST_DEVICES: [&str; 6] = [
    "VirtualSerialPort",
    "VirtualParallelPort",
    "VirtualFloppy",
    "VirtualPCIPassthrough",
    "VirtualSCSIPassthrough",
    "VirtualSriovEthernetCard",
];
/// The most words of a vCenter that are passed on.
const MAX_WORDS: usize = 1_000;
const MAX_WARNINGS: usize = 20;

/// A `VirtualMachineConfigSpec` up to where our marks go, in the order of the WSDL, on which a vCenter insists.
const BEFORE_UUID: [&str; 5] = ["changeVersion", "name", "version", "createDate", "uuid"];
const AFTER_EXTRA: [&str; 30] = [
    "swapPlacement",
    "bootOptions",
    "vAppConfig",
    "ftInfo",
    "repConfig",
    "vAppConfigRemoved",
    "vAssertsEnabled",
    "changeTrackingEnabled",
    "firmware",
    "maxMksConnections",
    "guestAutoLockEnabled",
    "managedBy",
    "memoryReservationLockedToMax",
    "nestedHVEnabled",
    "vPMCEnabled",
    "scheduledHardwareUpgradeInfo",
    "vmProfile",
    "messageBusTunnelEnabled",
    "crypto",
    "migrateEncryption",
    "sgxInfo",
    "ftEncryptionMode",
    "guestMonitoringModeInfo",
    "sevEnabled",
    "virtualNuma",
    "motherboardLayout",
    "pmemFailoverEnabled",
    "vmxStatsCollectionEnabled",
    "vmOpNotificationToAppEnabled",
    "vmOpNotificationTimeout",
];

/// Where the machine of a descriptor goes.
pub(super) struct Destination<'a> {
    pub(super) pool: &'a ManagedRef,
    pub(super) datastore: &'a ManagedRef,
    /// What its networks are mapped to.
    pub(super) network: Option<&'a ManagedRef>,
    /// What it is called on the vCenter.
    pub(super) name: &'a str,
}

/// What is to be imported.
#[derive(Debug)]
pub(super) struct Plan {
    /// The `VirtualMachineImportSpec`, with our marks.
    pub(super) spec: Element,
    pub(super) files: Vec<FileItem>,
    pub(super) warnings: Vec<String>,
}

/// A file that the vCenter wants for a device.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileItem {
    pub(super) device: String,
    pub(super) path: String,
    /// It is put as it is, and is no disk that the vCenter has made.
    pub(super) create: bool,
}

impl Session {
    /// Has the vCenter read a descriptor.
    pub(super) async fn plan_import(
        self: &Arc<Self>,
        spec: &ImportSpec,
        appliance: &Appliance,
        to: &Destination<'_>,
    ) -> Result<Plan, Fault> {
        let reader = self.login().await.and_then(|login| login.service("ovfManager")).map_err(of_call)?;
        let reply =
            self.call(&Call::read("CreateImportSpec", &reader, arguments(appliance, to))).await.map_err(of_call)?;
        plan(reply.at("returnval").unwrap_or(&Element::default()), spec)
    }
}

fn arguments(appliance: &Appliance, to: &Destination<'_>) -> Xml {
    let networks = to.network.map_or_else(Xml::new, |network| {
        appliance.networks.iter().fold(Xml::new(), |xml, name| {
            xml.node("networkMapping", Xml::new().text("name", name).reference("network", network))
        })
    });
    let wishes = Xml::new()
        .text("locale", "US")
        .text("deploymentOption", "")
        .text("entityName", to.name)
        .join(&networks)
        .text("diskProvisioning", "thin");
    Xml::new()
        .text("ovfDescriptor", &appliance.descriptor)
        .reference("resourcePool", to.pool)
        .reference("datastore", to.datastore)
        .node("cisp", wishes)
}

/// From an `OvfCreateImportSpecResult`.
fn plan(result: &Element, spec: &ImportSpec) -> Result<Plan, Fault> {
    let words = |kind: &str| -> Vec<String> {
        result.all(kind).take(MAX_WARNINGS).map(|told| VimFault::from_localized(told).message().to_owned()).collect()
    };
    let errors = words("error");
    if !errors.is_empty() {
        return Err(refused(shortened(&errors.join("; "))));
    }
    let mut warnings: Vec<_> = words("warning").iter().map(|warning| shortened(warning)).collect();
    let Some(machine) = result.at("importSpec") else { return Err(refused("it makes nothing of the descriptor")) };
    if !machine.is_kind("VirtualMachineImportSpec") {
        return Err(refused("its descriptor holds several machines; export one alone"));
    }
    let mut machine = machine.clone();
    let Some(config) = machine.children.iter_mut().find(|child| child.name == "configSpec") else {
        return Err(refused("it makes no machine of the descriptor"));
    };
    let left_out = leave_out_what_is_the_hosts(config);
    mark(config, spec);
    warnings.extend(left_out.iter().map(|told| shortened(told)));
    let files = result.all("fileItem").filter_map(|item| {
        Some(FileItem {
            device: item.text_at("deviceId")?.to_owned(),
            path: item.text_at("path")?.to_owned(),
            create: item.value_at("create").unwrap_or(false),
        })
    });
    let files = files.collect();
    Ok(Plan { spec: machine, files, warnings })
}

fn shortened(words: &str) -> String {
    words.chars().take(MAX_WORDS).collect()
}

/// Takes away what a tenant's descriptor must not decide, and says what that was.
fn leave_out_what_is_the_hosts(config: &mut Element) -> Vec<String> {
    let (mut settings, mut devices) = (Vec::new(), Vec::new());
    config.children.retain(|child| {
        let (left_out, what) = match child.name.as_str() {
            "extraConfig" => {
                let key = child.text_at("key").unwrap_or_default();
                (&mut settings, Some(key).filter(|key| !is_guests(key)))
            }
            "deviceChange" => {
                let kind = child.at("device").and_then(|device| device.kind.as_deref());
                (&mut devices, kind.filter(|kind| HOST_DEVICES.iter().any(|of_host| kind.starts_with(of_host))))
            }
            _ => return true,
        };
        left_out.extend(what.map(str::to_owned));
        what.is_none()
    });
    // Machines come with dozens of settings, of which nobody wants to read one by one.
    let told = |what: &str, names: Vec<String>| (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")));
    [
        told("settings of the host are left out, since the provider decides them", settings),
        told("devices of the host are left out, since the provider decides them", devices),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Whether a setting is for the guest or its disks. Our marks are ours to set.
fn is_guests(key: &str) -> bool {
    let key = key.to_lowercase();
    GUEST_KEYS.iter().any(|known| key.starts_with(known))
}

/// Puts our marks where the WSDL has their place.
fn mark(config: &mut Element, spec: &ImportSpec) {
    config.children.retain(|child| child.name != "instanceUuid");
    let at = config.children.iter().take_while(|child| BEFORE_UUID.contains(&child.name.as_str())).count();
    config.children.insert(at, Element::leaf("instanceUuid", spec.id));
    let at = config.children.iter().position(|child| AFTER_EXTRA.contains(&child.name.as_str()));
    let at = at.unwrap_or(config.children.len());
    let marks = template_marks(spec).map(|(key, value)| Element::option("extraConfig", key, value));
    config.children.splice(at..at, marks);
}

#[cfg(test)]
mod tests {
    use virtualstack_model::compute::id::TemplateId;
    use virtualstack_model::id::{OperationId, TenantId};

    use super::super::super::FaultClass;
    use super::super::super::import::Content;
    use super::*;

    fn spec() -> ImportSpec {
        ImportSpec {
            id: TemplateId::new(),
            tenant: TenantId::new(),
            operation: OperationId::new(),
            display_name: "debian".to_owned(),
            content: Content::Iso { size: 0 },
        }
    }

    fn read(inner: &str, spec: &ImportSpec) -> Result<Plan, Fault> {
        let text = format!("<returnval xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">{inner}</returnval>");
        plan(&Element::parse(&text).expect("well-formed"), spec)
    }

    const SPEC: &str = r#"<importSpec xsi:type="VirtualMachineImportSpec"><configSpec><name>n</name><version>vmx-19</version>
        <guestId>g</guestId><numCPUs>1</numCPUs>
        <deviceChange><operation>add</operation><device xsi:type="VirtualDisk"><key>1</key></device></deviceChange>
        <deviceChange><operation>add</operation><device xsi:type="VirtualSerialPort"><key>2</key></device></deviceChange>
        <extraConfig xsi:type="OptionValue"><key>virtualstack.vmId</key><value>theirs</value></extraConfig>
        <extraConfig xsi:type="OptionValue"><key>serial0.fileName</key><value>/vmfs/x</value></extraConfig>
        <extraConfig xsi:type="OptionValue"><key>guestinfo.role</key><value>db</value></extraConfig>
        <vAppConfig/><firmware>efi</firmware></configSpec></importSpec>"#;

    #[test]
    fn a_machine_gets_our_marks_and_nothing_of_the_host() {
        let spec = spec();
        let plan = read(SPEC, &spec).expect("a plan");
        let config = plan.spec.at("configSpec").expect("a configuration");
        let names: Vec<_> = config.children.iter().map(|child| child.name.as_str()).collect();
        let expected = "name version instanceUuid guestId numCPUs deviceChange extraConfig extraConfig extraConfig extraConfig \
                        vAppConfig firmware";
        assert_eq!(names.join(" "), expected);
        let keys: Vec<_> = config.all("extraConfig").filter_map(|entry| entry.text_at("key")).collect();
        assert_eq!(
            keys,
            ["guestinfo.role", "virtualstack.templateId", "virtualstack.operationId", "virtualstack.tenantId"]
        );
        assert_eq!(config.text_at("instanceUuid"), Some(spec.id.to_string().as_str()));
        let told = plan.warnings.join("\n");
        assert!(told.contains("serial0.fileName") && told.contains("VirtualSerialPort"), "{told}");
    }

    #[test]
    fn errors_are_told_in_the_words_of_the_vcenter() {
        let error = |words: &str| {
            format!(
                "<error><fault xsi:type=\"OvfUnsupportedType\"><name>x</name></fault>\
                 <localizedMessage>{words}</localizedMessage></error>"
            )
        };
        let fault =
            read(&format!("{SPEC}{}{}", error("no tape drives"), error("no wings")), &spec()).expect_err("refused");
        assert_eq!((fault.class, fault.reason), (FaultClass::Invalid, "TEMPLATE_REFUSED"));
        assert!(fault.message.ends_with("no tape drives; no wings"), "{fault}");
        let fault = read(&format!("{SPEC}{}", error(&"x".repeat(100_000))), &spec()).expect_err("refused");
        assert!(fault.message.len() < 2 * MAX_WORDS);
    }

    #[test]
    fn warnings_and_files_are_kept() {
        let more = "<fileItem><deviceId>/n/VirtualDisk:0</deviceId><path>d.vmdk</path><cimType>17</cimType><create>false</create>\
                    </fileItem><warning><fault xsi:type=\"OvfUnsupportedElement\"/><localizedMessage>Line 3: odd\
                    </localizedMessage></warning>";
        let plan = read(&format!("{SPEC}{more}"), &spec()).expect("a plan");
        assert_eq!(plan.warnings[0], "Line 3: odd");
        let disk = FileItem { device: "/n/VirtualDisk:0".to_owned(), path: "d.vmdk".to_owned(), create: false };
        assert_eq!(plan.files, [disk]);
    }

    #[test]
    fn one_machine_is_made_and_not_several() {
        let fault = read("<importSpec xsi:type=\"VirtualAppImportSpec\"/>", &spec()).expect_err("refused");
        assert_eq!(fault.class, FaultClass::Invalid);
        assert!(read("", &spec()).is_err());
    }
}
