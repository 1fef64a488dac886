//! What a guest is told at its first boot. A secret: user data holds passwords and keys more often than not.

use serde::{Deserialize, Serialize};

/// First-boot settings of a guest. They are kept as JSON, sealed, until the VM is made.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestCustomization {
    /// Host name; empty leaves it to the guest.
    #[serde(default)]
    pub hostname: String,
    /// Public keys for the guest's default user, in OpenSSH's format.
    #[serde(default)]
    pub ssh_keys: Vec<String>,
    /// What cloud-init runs; empty for none.
    #[serde(default)]
    pub user_data: String,
}

impl std::fmt::Debug for GuestCustomization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GuestCustomization").finish_non_exhaustive()
    }
}

/// Whether a guest operating system is Windows, by what the hypervisor calls it.
#[must_use]
pub fn is_windows(guest_os: &str) -> bool {
    let guest_os = guest_os.to_lowercase();
    guest_os.contains("windows") || guest_os.starts_with("win")
}

#[cfg(test)]
mod tests {
    use super::{GuestCustomization, is_windows};

    #[test]
    fn what_is_kept_is_read_and_never_printed() {
        let kept = r##"{"hostname":"web","ssh_keys":["ssh-ed25519 AAAA me"],"user_data":"#cloud-config secret"}"##;
        let read: GuestCustomization = serde_json::from_str(kept).expect("settings");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), kept);
        assert_eq!(format!("{read:?}"), "GuestCustomization { .. }");
    }

    #[test]
    fn windows_is_known_by_what_hypervisors_call_it() {
        for windows in ["Microsoft Windows Server 2022 (64-bit)", "windows2019srvNext_64Guest", "winNetEnterpriseGuest"]
        {
            assert!(is_windows(windows), "{windows}");
        }
        for other in ["Debian GNU/Linux 12 (64-bit)", "otherGuest64", "Darwin", ""] {
            assert!(!is_windows(other), "{other}");
        }
    }
}
