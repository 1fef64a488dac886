//! What every store does, by the local store always and by a real S3 where `VIRTUALSTACK_TEST_S3` names versitygw.

#![allow(clippy::print_stderr, reason = "tests tell whoever looks")]

mod answers;
mod folder;
mod lab;
mod s3;

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use virtualstack_objects::{Class, Listed, MAX_OBJECT, Objects};

use crate::lab::{bytes, key, labs, read};

async fn listed(objects: &Objects, prefix: &str, after: Option<&str>) -> Vec<Listed> {
    let after = after.map(key);
    objects.list(prefix, after.as_ref()).try_collect().await.expect("a list")
}

async fn names(objects: &Objects, prefix: &str, after: Option<&str>) -> Vec<String> {
    listed(objects, prefix, after).await.into_iter().map(|listed| listed.key.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_read_as_it_was_put() {
    for lab in labs().await {
        for size in [0, 1, 300_000, MAX_OBJECT] {
            let (key, all) = (key(&format!("sizes/{size}")), bytes(size));
            // In pieces, as a body comes.
            let pieces = all.chunks(70_000).map(Bytes::copy_from_slice).collect();
            lab.objects.put(&key, pieces).await.expect("put");
            let size = size as u64;
            for range in
                [0..u64::MAX, 0..size, 0..1, 1..size, size / 2..size / 2 + 100_000, size - size.min(1)..size * 2]
            {
                let end = range.end.min(size);
                let part = &all[range.start.min(end) as usize..end as usize];
                assert!(
                    read(&lab.objects, &key, range.clone()).await.expect("read") == part,
                    "{lab}: {range:?} of {size}"
                );
            }
            for nothing in [size..size + 1, size + 5..u64::MAX, 0..0, 1..1, u64::MAX..u64::MAX] {
                let part = read(&lab.objects, &key, nothing.clone()).await.expect("read");
                assert!(part.is_empty(), "{lab}: {nothing:?} of {size} is {} bytes", part.len());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_that_is_repeated_changes_nothing_and_another_takes_its_place() {
    for lab in labs().await {
        let key = key("twice/1");
        for text in ["first", "first", "2nd"] {
            lab.objects.put(&key, vec![Bytes::from_static(text.as_bytes())]).await.expect("put");
            assert_eq!(read(&lab.objects, &key, 0..u64::MAX).await.expect("read"), text.as_bytes(), "{lab}");
        }
        assert_eq!(names(&lab.objects, "", None).await, ["twice/1"], "{lab}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_too_large_is_refused_whole() {
    for lab in labs().await {
        let pieces = vec![Bytes::from(bytes(MAX_OBJECT)), Bytes::from_static(b"!")];
        let fault = lab.objects.put(&key("large/1"), pieces).await.expect_err("refused");
        assert_eq!(fault.class, Class::Permanent, "{lab}: {fault:?}");
        assert!(fault.detail.contains("large/1: 8388609 bytes"), "{lab}: {fault:?}");
        assert!(names(&lab.objects, "", None).await.is_empty(), "{lab}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_is_told_by_reads_and_no_matter_to_deletes() {
    for lab in labs().await {
        lab.objects.put(&key("a/b/c"), vec![Bytes::from_static(b"1")]).await.expect("put");
        for gone in ["a/b/d", "x/y/z", "a/b"] {
            for range in [0..u64::MAX, 0..0] {
                let fault = read(&lab.objects, &key(gone), range).await.expect_err("missing");
                assert_eq!(fault.class, Class::Missing, "{lab}: {gone}: {fault:?}");
            }
        }
        let gone = ["a/b/d", "a/b/c", "x/y/z", "a/b/c"].map(key);
        lab.objects.delete(&gone).await.expect("deleted");
        lab.objects.delete(&gone).await.expect("gone already");
        lab.objects.delete(&[]).await.expect("nothing to do");
        assert!(names(&lab.objects, "", None).await.is_empty(), "{lab}");
    }
}

/// More than S3 lists, or deletes, in one request.
#[tokio::test(flavor = "multi_thread")]
async fn thousands_are_listed_in_order_and_deleted() {
    for lab in labs().await {
        let keys: Vec<_> = (0..2500).map(|index| key(&format!("many/{}/{index:04}", index % 7))).collect();
        let puts = keys.iter().map(|key| lab.objects.put(key, vec![Bytes::from(key.to_string())]));
        stream::iter(puts).buffer_unordered(32).try_for_each(async |()| Ok(())).await.expect("put");
        lab.objects.put(&key("other/1"), Vec::new()).await.expect("put");

        let mut sorted: Vec<_> = keys.iter().map(ToString::to_string).collect();
        sorted.sort_unstable();
        let all = listed(&lab.objects, "many/", None).await;
        assert!(all.iter().map(|listed| listed.key.to_string()).eq(sorted.iter().cloned()), "{lab}");
        let now = chrono::Utc::now();
        for listed in all {
            assert_eq!(listed.size, listed.key.as_str().len() as u64, "{lab}: {listed:?}");
            assert!((now - listed.modified).num_minutes().abs() < 10, "{lab}: {listed:?}");
        }
        for after in [0, 1, 999, 1000, 1001, 2498, 2499] {
            let rest = names(&lab.objects, "many/", Some(&sorted[after])).await;
            assert!(rest == sorted[after + 1..], "{lab}: {} after {after}", rest.len());
        }
        assert_eq!(names(&lab.objects, "", Some("many/6/9999")).await, ["other/1"], "{lab}");
        assert_eq!(names(&lab.objects, "many/3/000", None).await, ["many/3/0003"], "{lab}");

        lab.objects.delete(&keys).await.expect("deleted");
        assert_eq!(names(&lab.objects, "", None).await, ["other/1"], "{lab}");
    }
}

/// Folders and files side by side, where walking and sorting differ.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_is_that_of_the_keys_bytes() {
    for lab in labs().await {
        let keys = ["a-b", "a.b", "a/b-/x", "a/b/1", "a/b0", "a0", "b"];
        for name in keys {
            lab.objects.put(&key(name), Vec::new()).await.expect("put");
        }
        assert_eq!(names(&lab.objects, "", None).await, keys, "{lab}");
        assert_eq!(names(&lab.objects, "a/b", None).await, keys[2..5], "{lab}");
        for (index, after) in keys.iter().enumerate() {
            assert_eq!(names(&lab.objects, "", Some(after)).await, keys[index + 1..], "{lab}: after {after}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_one_put_or_another_and_never_a_part() {
    for lab in labs().await {
        let (objects, key) = (&lab.objects, key("race/1"));
        let versions: Vec<_> = (0..4_u8).map(|version| Bytes::from(vec![version; 1 << 20])).collect();
        objects.put(&key, vec![versions[0].clone()]).await.expect("put");
        let puts = (0..24).map(|index| objects.put(&key, vec![versions[index % 4].clone()]));
        let puts = stream::iter(puts).buffer_unordered(4).try_for_each(async |()| Ok(()));
        let reads = stream::iter(0..24).map(async |_| read(objects, &key, 0..u64::MAX).await.expect("read"));
        let reads = reads.buffer_unordered(4).collect::<Vec<_>>();
        let (put, reads) = futures::join!(puts, reads);
        put.expect("put");
        assert!(reads.iter().all(|read| versions.iter().any(|version| version == read)), "{lab}");
    }
}

/// Deletes take empty folders away that puts are about to use.
#[tokio::test(flavor = "multi_thread")]
async fn puts_and_deletes_in_one_folder_do_not_hinder_each_other() {
    for lab in labs().await {
        let objects = &lab.objects;
        let work = stream::iter(0..200).map(async |index| {
            let key = key(&format!("busy/deep/{index}"));
            objects.put(&key, vec![Bytes::from_static(b"1")]).await.expect("put");
            if index % 2 == 0 {
                objects.delete(&[key]).await.expect("deleted");
            }
        });
        work.buffer_unordered(16).collect::<()>().await;
        let left: BTreeSet<_> = names(objects, "", None).await.into_iter().collect();
        let odd: BTreeSet<_> =
            (0..200).filter(|index| index % 2 == 1).map(|index| format!("busy/deep/{index}")).collect();
        assert_eq!(left, odd, "{lab}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_leaves_nothing() {
    for lab in labs().await {
        for _ in 0..3 {
            lab.objects.check().await.expect("a store that works");
        }
        assert!(names(&lab.objects, "", None).await.is_empty(), "{lab}");
        assert_eq!(lab.objects.sweep_temporary(std::time::Duration::ZERO).await, Ok(0), "{lab}");
    }
}

/// Memory of a list is bounded by what is ahead of its reader: one that stops reading ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_may_be_left() {
    for lab in labs().await {
        for index in 0..20 {
            lab.objects.put(&key(&format!("left/{index:02}")), Vec::new()).await.expect("put");
        }
        let first: Vec<_> = lab.objects.list("left/", None).take(2).try_collect().await.expect("a list");
        assert_eq!(first.iter().map(|listed| listed.key.as_str()).collect::<Vec<_>>(), ["left/00", "left/01"], "{lab}");
    }
}
