//! The files of a folder in the order of their keys, as an S3 lists them.

use std::io;
use std::path::Path;

use chrono::{DateTime, Utc};
use walkdir::{DirEntry, WalkDir};

use crate::key::Key;
use crate::listed::Listed;

/// Hands over the objects whose keys begin with `prefix` and come after `after`, until `take` wants no more. Folders that
/// hold none of them are not looked into.
pub(crate) fn walk(folder: &Path, prefix: &str, after: Option<&str>, mut take: impl FnMut(io::Result<Listed>) -> bool) {
    let is_wanted = |entry: &DirEntry| match relative(folder, entry) {
        Some(path) if entry.file_type().is_dir() => may_hold(&format!("{path}/"), prefix, after),
        Some(path) => path.starts_with(prefix) && after.is_none_or(|after| path > after),
        None => false,
    };
    let entries = WalkDir::new(folder).sort_by(|one, other| order(one).cmp(order(other))).into_iter();
    let entries = entries.filter_entry(|entry| entry.depth() == 0 || is_wanted(entry));
    for listed in entries.filter_map(|entry| listed(folder, entry).transpose()) {
        if !take(listed) {
            return;
        }
    }
}

/// What sorts an entry where its key has its place: below `a`, `a/b` comes after `a-b`.
fn order(entry: &DirEntry) -> impl Iterator<Item = &u8> {
    let slash: &[u8] = if entry.file_type().is_dir() { b"/" } else { b"" };
    entry.file_name().as_encoded_bytes().iter().chain(slash)
}

/// The path of an entry in the folder; none where it is not ours.
fn relative<'a>(folder: &Path, entry: &'a DirEntry) -> Option<&'a str> {
    let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
    entry.path().strip_prefix(folder).ok()?.to_str().filter(|_| !hidden)
}

fn may_hold(inside: &str, prefix: &str, after: Option<&str>) -> bool {
    (inside.starts_with(prefix) || prefix.starts_with(inside))
        && after.is_none_or(|after| inside > after || after.starts_with(inside))
}

/// What is to be told of an entry: nothing of one that is no object, or has been deleted meanwhile.
fn listed(folder: &Path, entry: walkdir::Result<DirEntry>) -> io::Result<Option<Listed>> {
    let told = entry.and_then(|entry| {
        let key = relative(folder, &entry).and_then(|path| path.parse::<Key>().ok());
        let Some(key) = key.filter(|_| entry.file_type().is_file()) else { return Ok(None) };
        Ok(Some((key, entry.metadata()?)))
    });
    match told {
        Ok(None) => Ok(None),
        Ok(Some((key, metadata))) => {
            let modified = DateTime::<Utc>::from(metadata.modified()?);
            Ok(Some(Listed { key, size: metadata.len(), modified }))
        }
        Err(error) => match io::Error::from(error) {
            gone if gone.kind() == io::ErrorKind::NotFound => Ok(None),
            error => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn keys(folder: &Path, prefix: &str, after: Option<&str>) -> Vec<String> {
        let mut keys = Vec::new();
        walk(folder, prefix, after, |listed| {
            keys.push(listed.expect("an object").key.to_string());
            true
        });
        keys
    }

    #[test]
    fn the_order_is_that_of_keys_and_a_list_goes_on_from_each() {
        let folder = tempfile::tempdir().expect("a folder");
        let all = ["a-b", "a.b", "a/0", "a/b-/x", "a/b/1", "a/b/2", "a/b0", "a0", "b"];
        for key in all {
            let path = folder.path().join(key);
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(path, key).expect("written");
        }
        fs::create_dir(folder.path().join(".new")).expect("made");
        for foreign in [".new/a", "a/.nfs01", "a/with space", "a/b/#1"] {
            fs::write(folder.path().join(foreign), "").expect("written");
        }
        let mut sorted = all;
        sorted.sort_unstable();
        assert_eq!(sorted, all, "the test's own order");
        assert_eq!(keys(folder.path(), "", None), all);
        for (index, key) in all.iter().enumerate() {
            assert_eq!(keys(folder.path(), "", Some(key)), all[index + 1..], "after {key}");
        }
        assert_eq!(keys(folder.path(), "", Some("a/b/")), all[4..], "after what is no key");
        assert_eq!(keys(folder.path(), "a/b", None), all[3..7]);
        assert_eq!(keys(folder.path(), "a/b/", Some("a/b/1")), ["a/b/2"]);
        assert_eq!(keys(folder.path(), "c", None), <[&str; 0]>::default());
        let mut taken = 0;
        walk(folder.path(), "", None, |_| {
            taken += 1;
            taken < 2
        });
        assert_eq!(taken, 2);
    }
}
