//! Whom a cluster belongs to: PostgreSQL refuses root, so when we are root it is somebody else.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use virtualstack_model::{Error, Result};

use crate::error::io_error;

/// Whom the cluster runs as.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    /// Of somebody else than us.
    pub(crate) ids: Option<(u32, u32)>,
}

impl Owner {
    pub(crate) fn of_this_process() -> Result<Self> {
        let user = rustix::process::geteuid();
        if !user.is_root() {
            return Ok(Self { uid: user.as_raw(), ids: None });
        }
        let users = fs::read_to_string("/etc/passwd")
            .map_err(|error| io_error("cannot read", "/etc/passwd".as_ref(), &error))?;
        ["postgres", "nobody"]
            .iter()
            .find_map(|name| {
                let fields: Vec<_> =
                    users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|f| f[0] == *name)?;
                Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
            })
            .map(|(uid, gid)| Self { uid, ids: Some((uid, gid)) })
            .ok_or_else(|| {
                Error::precondition(
                    "NO_UNPRIVILEGED_USER",
                    "/etc/passwd",
                    "PostgreSQL does not run as root, and there is no user postgres or nobody",
                )
            })
    }

    /// Gives a folder to the cluster's user.
    pub(crate) fn own(&self, folder: &Path) -> Result<()> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        std::os::unix::fs::lchown(folder, Some(uid), Some(gid))
            .map_err(|error| io_error("cannot give a folder to PostgreSQL's user", folder, &error))
    }

    /// Makes sure that the cluster's user can come into `folder`, as far as it is there.
    pub(crate) fn check_way_to(&self, folder: &Path) -> Result<()> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        for step in folder.ancestors() {
            let Ok(found) = fs::metadata(step) else { continue };
            let mode = found.permissions().mode();
            let can_enter = mode & 0o001 != 0
                || (found.uid() == uid && mode & 0o100 != 0)
                || (found.gid() == gid && mode & 0o010 != 0);
            if !can_enter {
                return Err(Error::precondition(
                    "DATA_FOLDER_UNREACHABLE",
                    step.display().to_string(),
                    format!(
                        "PostgreSQL runs as an unprivileged user, who cannot enter {}; choose another --data-dir or allow it (chmod o+x)",
                        step.display()
                    ),
                ));
            }
        }
        Ok(())
    }
}
