//! What is particular to a folder: who may read it, what is left of puts that were cut off, and when it is full or gone.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use virtualstack_objects::{Class, Config, Listed, Objects};

use crate::lab::{bytes, key, read};

fn open(folder: &Path) -> Objects {
    Objects::open(&Config { folder: Some(folder.to_owned()), ..Config::default() }).expect("a store")
}

/// All that is in a folder, with who may read it.
fn inside(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(folder.to_owned(), fs::metadata(folder).expect("there").permissions().mode() & 0o777)];
    if folder.is_dir() {
        for entry in fs::read_dir(folder).expect("a folder") {
            found.extend(inside(&entry.expect("an entry").path()));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_read_any_of_it() {
    let parent = tempfile::tempdir().expect("a folder");
    let folder = parent.path().join("data/objects");
    let objects = open(&folder);
    objects.put(&key("a/b/c"), vec![Bytes::from_static(b"1")]).await.expect("put");
    let found = inside(&parent.path().join("data"));
    assert_eq!(found.len(), 6, "{found:?}");
    for (path, mode) in found {
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{path:?}: {mode:o}");
    }
    objects.delete(&[key("a/b/c")]).await.expect("deleted");
    assert_eq!(inside(&folder).len(), 2, "empty folders go, all but .new");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_put_has_left_that_was_cut_off_is_no_object_and_swept_in_time() {
    let parent = tempfile::tempdir().expect("a folder");
    let (objects, other) = (open(parent.path()), open(parent.path()));
    objects.put(&key("a/b"), vec![Bytes::from_static(b"1")]).await.expect("put");
    let [old, young] = ["old", "young"].map(|name| parent.path().join(".new").join(name));
    for file in [&old, &young] {
        fs::write(file, bytes(1000)).expect("written");
    }
    let hour = Duration::from_secs(3600);
    let past = std::time::SystemTime::now() - 2 * hour;
    fs::File::options().write(true).open(&old).expect("a file").set_modified(past).expect("older");
    let listed: Vec<Listed> = objects.list("", None).try_collect().await.expect("a list");
    assert_eq!(listed.iter().map(|listed| listed.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
    assert_eq!(other.sweep_temporary(hour).await, Ok(1));
    assert!(!old.exists() && young.exists());
    assert_eq!(objects.sweep_temporary(hour).await, Ok(0));
    assert_eq!(objects.sweep_temporary(Duration::MAX).await, Ok(0));
}

/// A process that is killed between the bytes and the name: what it leaves is where the sweep looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_put_writes_in_new_and_nowhere_else_before_it_has_its_name() {
    let parent = tempfile::tempdir().expect("a folder");
    let objects = open(parent.path());
    // Its name cannot be given: a folder with something in it is there.
    fs::create_dir_all(parent.path().join("a/b/c")).expect("made");
    let fault = objects.put(&key("a/b"), vec![Bytes::from_static(b"1")]).await.expect_err("refused");
    assert_eq!(fault.class, Class::Permanent, "{fault:?}");
    let files: BTreeSet<_> = inside(parent.path()).into_iter().filter(|(path, _)| path.is_file()).collect();
    assert!(files.is_empty(), "{files:?}");
}

/// Without the look for it, each object would seem to be gone for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_not_mounted_any_more_may_come_back() {
    let parent = tempfile::tempdir().expect("a folder");
    let (folder, aside) = (parent.path().join("objects"), parent.path().join("aside"));
    let objects = open(&folder);
    objects.put(&key("a/b"), vec![Bytes::from_static(b"1")]).await.expect("put");
    fs::rename(&folder, &aside).expect("moved");
    fs::create_dir(&folder).expect("what it was mounted on");
    let faults = [
        read(&objects, &key("a/b"), 0..1).await.expect_err("gone"),
        objects.put(&key("a/c"), Vec::new()).await.expect_err("gone"),
        objects.delete(&[key("a/b")]).await.expect_err("gone"),
        objects.list("", None).try_collect::<Vec<_>>().await.expect_err("gone"),
        objects.sweep_temporary(Duration::ZERO).await.expect_err("gone"),
        objects.check().await.expect_err("gone"),
    ];
    for fault in faults {
        assert_eq!(fault.class, Class::Retry, "{fault:?}");
        assert!(fault.detail.contains("storage.folder") && fault.detail.contains("mounted"), "{fault:?}");
    }
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 0, "nothing is written beside the mount");
    fs::remove_dir(&folder).expect("removed");
    fs::rename(&aside, &folder).expect("moved");
    assert_eq!(read(&objects, &key("a/b"), 0..1).await.expect("there again"), b"1");
}

#[test]
fn a_folder_that_cannot_be_made_names_its_key() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let config = Config { folder: Some(file.path().join("objects")), ..Config::default() };
    assert_eq!(Objects::open(&config).expect_err("refused").key, "folder");
}

/// Of a file system of 4 MiB, which a namespace of its own gives to everybody. There the test runs itself again.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the product")]
async fn a_full_disk_is_told_and_what_was_there_stays() {
    const SMALL: &str = "VIRTUALSTACK_TEST_SMALL_DISK";
    if let Some(folder) = std::env::var_os(SMALL) {
        return fills(Path::new(&folder)).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let script = "mount -t tmpfs -o size=4m tmpfs \"$1\" || exit 99; export VIRTUALSTACK_TEST_SMALL_DISK=\"$1\"; exec \"$2\" \
                  --exact folder::a_full_disk_is_told_and_what_was_there_stays --nocapture";
    let again = std::env::current_exe().expect("this program");
    let ran = Command::new("unshare").args(["-rm", "sh", "-c", script, "sh"]).arg(folder.path()).arg(again).output();
    match ran {
        Ok(ran) if ran.status.success() => {
            let text = String::from_utf8_lossy(&ran.stdout);
            assert!(text.contains("1 passed"), "{text}");
        }
        Ok(ran) if ran.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&ran.stderr)),
        _ => eprintln!("skipped: nobody here may make a small file system (unshare -rm and mount)"),
    }
}

async fn fills(folder: &Path) {
    let objects = open(folder);
    let (first, second) = (bytes(3 << 20), bytes(2 << 20));
    objects.put(&key("a/1"), vec![Bytes::from(first.clone())]).await.expect("put");
    for _ in 0..3 {
        let fault = objects.put(&key("a/2"), vec![Bytes::from(second.clone())]).await.expect_err("full");
        assert_eq!(fault.class, Class::Full, "{fault:?}");
    }
    assert_eq!(fs::read_dir(folder.join(".new")).expect("a folder").count(), 0, "room is given back");
    let listed: Vec<Listed> = objects.list("", None).try_collect().await.expect("a list");
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(read(&objects, &key("a/1"), 0..u64::MAX).await.expect("read") == first);
    objects.delete(&[key("a/1")]).await.expect("deleted");
    objects.put(&key("a/2"), vec![Bytes::from(second)]).await.expect("put");
}
