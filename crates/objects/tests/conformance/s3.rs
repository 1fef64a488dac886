//! What is particular to an S3, of a real one: who it lets in, where, and with which credentials after they have changed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::TryStreamExt as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use virtualstack_objects::{Class, Config, Fault, Objects};

use crate::lab::{VersityGw, key, read};

async fn put(objects: &Objects) -> Result<(), Fault> {
    objects.put(&key("a/b"), vec![Bytes::from_static(b"1")]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_which_setting_is_wrong() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(s3) = VersityGw::start(folder.path(), "ada", "hunter2").await else { return };
    let nowhere = Config { bucket: Some("nowhere".into()), ..s3.config("ada", "hunter2") };
    for (config, setting) in [
        (s3.config("eve", "hunter2"), "storage.access_key"),
        (s3.config("ada", "hunter3"), "storage.secret_key"),
        (nowhere, "storage.bucket"),
    ] {
        let objects = Objects::open(&config).expect("a store");
        let faults = [
            put(&objects).await.expect_err("refused"),
            read(&objects, &key("a/b"), 0..1).await.expect_err("refused"),
            objects.delete(&[key("a/b")]).await.expect_err("refused"),
            objects.check().await.expect_err("refused"),
        ];
        for fault in faults {
            assert_eq!(fault.class, Class::Permanent, "{setting}: {fault:?}");
            assert!(fault.detail.starts_with(setting) && !fault.detail.contains("hunter"), "{setting}: {fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_change_in_their_files_without_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let [access, secret] = ["access", "secret"].map(|name| folder.path().join(name));
    let write = |new: (&str, &str)| {
        fs::write(&access, format!("{}\n", new.0)).expect("written");
        fs::write(&secret, format!("{}\n", new.1)).expect("written");
    };
    write(("ada", "hunter2"));
    let Some(s3) = VersityGw::start(folder.path(), "ada", "hunter2").await else { return };
    let port = s3.port;
    let (access_key_file, secret_key_file) = (Some(access.clone()), Some(secret.clone()));
    let config = Config { access_key: None, secret_key: None, access_key_file, secret_key_file, ..s3.config("", "") };
    let objects = Objects::open(&config).expect("a store");
    put(&objects).await.expect("put");
    s3.stop().await;
    let fault = put(&objects).await.expect_err("nobody there");
    assert_eq!(fault.class, Class::Retry, "{fault:?}");
    let s3 = VersityGw::start_at(folder.path(), "ada", "hunter3", port).await;
    let fault = put(&objects).await.expect_err("refused");
    assert_eq!(fault.class, Class::Permanent, "{fault:?}");
    write(("ada", "hunter3"));
    assert_eq!(read(&objects, &key("a/b"), 0..1).await.expect("read with the new ones"), b"1");
    objects.check().await.expect("all of it");
    drop(s3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_away_is_used_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(s3) = VersityGw::start(folder.path(), "ada", "hunter2").await else { return };
    let (port, objects) = (s3.port, Objects::open(&s3.config("ada", "hunter2")).expect("a store"));
    put(&objects).await.expect("put");
    s3.stop().await;
    let faults = [
        put(&objects).await.expect_err("nobody there"),
        read(&objects, &key("a/b"), 0..1).await.expect_err("nobody there"),
        objects.delete(&[key("a/b")]).await.expect_err("nobody there"),
        objects.list("", None).try_collect::<Vec<_>>().await.expect_err("nobody there"),
        objects.check().await.expect_err("nobody there"),
    ];
    for fault in faults {
        assert_eq!(fault.class, Class::Retry, "{fault:?}");
    }
    let s3 = VersityGw::start_at(folder.path(), "ada", "hunter2", port).await;
    assert_eq!(read(&objects, &key("a/b"), 0..1).await.expect("there again"), b"1");
    objects.check().await.expect("all of it");
    drop(s3);
}

/// An authority, and what it says of 127.0.0.1: both in PEM files, and the key of the latter.
fn certificates(folder: &Path) -> [PathBuf; 3] {
    let [authority, leaf] = [(); 2].map(|()| KeyPair::generate().expect("a key"));
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&authority).expect("a certificate");
    let issuer = Issuer::new(params, authority);
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
    let certificate = params.signed_by(&leaf, &issuer).expect("a certificate");
    [("ca.pem", root.pem()), ("cert.pem", certificate.pem()), ("key.pem", leaf.serialize_pem())].map(|(name, text)| {
        let file = folder.join(name);
        fs::write(&file, text).expect("written");
        file
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_counts_by_the_authorities_that_are_trusted() {
    let [folder, other] = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
    let [ca, certificate, private] = certificates(folder.path());
    let more = [OsStr::new("--cert"), certificate.as_os_str(), OsStr::new("--key"), private.as_os_str()];
    let Some(s3) = VersityGw::start_with(folder.path(), "ada", "hunter2", &more).await else { return };
    let endpoint = Some(format!("https://127.0.0.1:{}", s3.port));
    let config = |ca_file| Config { endpoint: endpoint.clone(), ca_file, ..s3.config("ada", "hunter2") };
    let objects = Objects::open(&config(Some(ca))).expect("a store");
    put(&objects).await.expect("put");
    objects.check().await.expect("all of it");
    let [another, ..] = certificates(other.path());
    for ca_file in [None, Some(another)] {
        let objects = Objects::open(&config(ca_file)).expect("a store");
        let fault = put(&objects).await.expect_err("not trusted");
        assert_eq!(fault.class, Class::Permanent, "{fault:?}");
        assert!(fault.detail.starts_with("storage.ca_file: "), "{fault:?}");
    }
}
