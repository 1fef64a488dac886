//! What a guest is told at its first boot.
//!
//! Guests with cloud-init read it from the settings of their VM; Windows is told by the vCenter itself, and its host name only:
//! it has no place for keys and scripts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use virtualstack_model::compute::customization::GuestCustomization;

use super::super::VmSpec;
use super::xml::Xml;

/// What a Windows computer may be called at most.
const MAX_COMPUTER_NAME: usize = 15;
/// Greenwich Standard Time, the nearest that Windows has to UTC in a vCenter's list.
const TIME_ZONE: i32 = 90;

/// Whether a guest is a Windows, by the vCenter's name for its kind.
pub(super) fn is_windows(guest_id: &str) -> bool {
    guest_id.starts_with("win")
}

/// The part of a `VirtualMachineConfigSpec` that cloud-init reads.
pub(super) fn guest_info(spec: &VmSpec) -> Xml {
    let Some(wish) = &spec.customization else { return Xml::new() };
    let encoded = |xml: Xml, key: &str, value: &str| {
        xml.option("extraConfig", key, STANDARD.encode(value)).option(
            "extraConfig",
            &format!("{key}.encoding"),
            "base64",
        )
    };
    let xml = encoded(Xml::new(), "guestinfo.metadata", &metadata(spec, wish));
    if wish.user_data.is_empty() { xml } else { encoded(xml, "guestinfo.userdata", &wish.user_data) }
}

/// JSON, which is YAML too. A new instance makes cloud-init begin anew on a disk that has been started before.
fn metadata(spec: &VmSpec, wish: &GuestCustomization) -> String {
    let mut told = Map::new();
    told.insert("instance-id".to_owned(), Value::String(spec.id.to_string()));
    if !wish.hostname.is_empty() {
        told.insert("local-hostname".to_owned(), Value::String(wish.hostname.clone()));
    }
    if !wish.ssh_keys.is_empty() {
        told.insert("public-keys".to_owned(), Value::from(wish.ssh_keys.clone()));
    }
    Value::Object(told).to_string()
}

/// The part of a `VirtualMachineCloneSpec` that names a Windows guest. Elements in the order of the WSDL, on which a vCenter
/// insists; each network card has to be spoken for.
pub(super) fn sysprep(spec: &VmSpec, cards: usize) -> Xml {
    let hostname = spec.customization.as_ref().map(|wish| wish.hostname.as_str()).unwrap_or_default();
    if hostname.is_empty() {
        return Xml::new();
    }
    let name: String = hostname.chars().take(MAX_COMPUTER_NAME).collect();
    let name = Xml::new().text("name", name.trim_end_matches('-'));
    let options = Xml::new().text("changeSID", true).text("deleteAccounts", false);
    let unattended = Xml::new().text("timeZone", TIME_ZONE).text("autoLogon", false).text("autoLogonCount", 0);
    let user = Xml::new()
        .text("fullName", "User")
        .text("orgName", "Organization")
        .typed("computerName", "CustomizationFixedName", name)
        .text("productId", "");
    let identity = Xml::new()
        .node("guiUnattended", unattended)
        .node("userData", user)
        .node("identification", Xml::new().text("joinWorkgroup", "WORKGROUP"));
    let by_dhcp = || {
        let adapter = Xml::new().typed("ip", "CustomizationDhcpIpGenerator", Xml::new());
        Xml::new().node("adapter", adapter)
    };
    let cards = (0..cards).fold(Xml::new(), |xml, _| xml.node("nicSettingMap", by_dhcp()));
    let inner = Xml::new()
        .typed("options", "CustomizationWinOptions", options)
        .typed("identity", "CustomizationSysprep", identity)
        .node("globalIPSettings", Xml::new())
        .join(&cards);
    Xml::new().node("customization", inner)
}

#[cfg(test)]
mod tests {
    use virtualstack_model::compute::id::VmId;
    use virtualstack_model::compute::template::TemplateKind;
    use virtualstack_model::compute::vm::Size;
    use virtualstack_model::id::{OperationId, TenantId};

    use super::super::super::TemplateRef;
    use super::super::xml::{Element, ManagedRef};
    use super::*;

    fn spec(customization: Option<GuestCustomization>) -> VmSpec {
        VmSpec {
            id: VmId::new(),
            tenant: TenantId::new(),
            operation: OperationId::new(),
            display_name: "web".to_owned(),
            template: TemplateRef(String::new()),
            kind: TemplateKind::Ova,
            size: Size { cpu_count: 1, memory_mib: 1024, disk_gib: 10 },
            customization,
        }
    }

    fn wish(hostname: &str, ssh_keys: &[&str], user_data: &str) -> GuestCustomization {
        let ssh_keys = ssh_keys.iter().map(|key| (*key).to_owned()).collect();
        GuestCustomization { hostname: hostname.to_owned(), ssh_keys, user_data: user_data.to_owned() }
    }

    fn read(xml: &Xml) -> Element {
        let text = Xml::envelope("M", &ManagedRef::new("T", "t"), xml);
        Element::parse(&text).expect("well-formed").at("Body/M").cloned().expect("a call")
    }

    fn told(spec: &VmSpec) -> Vec<(String, String)> {
        let options = read(&guest_info(spec));
        let text = |option: &Element, at: &str| option.text_at(at).unwrap_or_default().to_owned();
        options.all("extraConfig").map(|option| (text(option, "key"), text(option, "value"))).collect()
    }

    #[test]
    fn cloud_init_is_told_name_keys_and_user_data() {
        let spec = spec(Some(wish("web-1", &["ssh-ed25519 AAAA me"], "#cloud-config\nx: \"é\"\n")));
        let told = told(&spec);
        let keys: Vec<_> = told.iter().map(|(key, _)| key.as_str()).collect();
        let expected =
            ["guestinfo.metadata", "guestinfo.metadata.encoding", "guestinfo.userdata", "guestinfo.userdata.encoding"];
        assert_eq!(keys, expected);
        let decoded = |at: usize| String::from_utf8(STANDARD.decode(&told[at].1).expect("base64")).expect("text");
        let metadata: Value = serde_json::from_str(&decoded(0)).expect("JSON");
        assert_eq!(metadata["instance-id"], spec.id.to_string());
        assert_eq!(
            (&metadata["local-hostname"], &metadata["public-keys"][0]),
            (&"web-1".into(), &"ssh-ed25519 AAAA me".into())
        );
        assert_eq!(decoded(2), "#cloud-config\nx: \"é\"\n");
        assert_eq!((told[1].1.as_str(), told[3].1.as_str()), ("base64", "base64"));
    }

    #[test]
    fn a_guest_is_told_nothing_that_nobody_wished() {
        assert_eq!(told(&spec(None)), []);
        let told = told(&spec(Some(wish("", &[], ""))));
        assert_eq!(told.len(), 2, "its instance, and no user data: {told:?}");
        assert!(read(&sysprep(&spec(None), 1)).at("customization").is_none());
        assert!(read(&sysprep(&spec(Some(wish("", &[], "")),), 1)).at("customization").is_none());
    }

    #[test]
    fn windows_gets_a_name_that_it_can_bear() {
        let call = read(&sysprep(&spec(Some(wish("a-rather-long--name", &[], ""))), 2));
        let told = call.at("customization").expect("a customization");
        let order: Vec<_> = told.children.iter().map(|child| child.name.as_str()).collect();
        assert_eq!(order, ["options", "identity", "globalIPSettings", "nicSettingMap", "nicSettingMap"]);
        assert_eq!(told.text_at("identity/userData/computerName/name"), Some("a-rather-long"));
        assert!(told.at("nicSettingMap/adapter/ip").is_some_and(|ip| ip.is_kind("CustomizationDhcpIpGenerator")));
        assert!(is_windows("windows2019srvNext_64Guest") && !is_windows("debian12_64Guest"));
    }
}
