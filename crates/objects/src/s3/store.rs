//! The calls to an S3.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::list::{PaginatedListOptions, PaginatedListStore as _};
use object_store::path::Path;
use object_store::{
    BackoffConfig, GetOptions, GetRange, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutPayload, RetryConfig,
};

use super::client::Client;
use super::credentials::Credentials;
use super::faults::{fault, is_beyond, is_missing, is_refusal};
use crate::config::{Config, ConfigError};
use crate::fault::{Class, Fault};
use crate::key::Key;
use crate::listed::Listed;

/// How often a request is repeated here. Few and soon: callers come again themselves, and know better for how long.
const RETRIES: usize = 2;
/// Nothing is repeated after this. It is shorter than a request may take: what had no answer in time is not asked twice.
const RETRY_FOR: Duration = Duration::from_secs(3);

/// A bucket, or the part of one that the prefix names.
pub(crate) struct S3 {
    store: AmazonS3,
    credentials: Arc<Credentials>,
    prefix: String,
}

impl S3 {
    pub(crate) fn open(config: &Config) -> Result<Self, ConfigError> {
        let credentials = Arc::new(Credentials::new(config)?);
        let url = config.url()?;
        let backoff = BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            ..BackoffConfig::default()
        };
        let timeout = Duration::from_secs(config.request_timeout_seconds);
        let retry = RetryConfig { backoff, max_retries: RETRIES, retry_timeout: RETRY_FOR.min(timeout / 2) };
        let store = AmazonS3Builder::new()
            .with_endpoint(url.as_str().trim_end_matches('/'))
            .with_allow_http(url.scheme() == "http")
            .with_bucket_name(config.bucket()?)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_region(config.region.trim())
            .with_credentials(Arc::clone(&credentials) as _)
            .with_http_connector(Client::new(config)?)
            .with_retry(retry)
            .build()
            .map_err(|error| ConfigError::new("endpoint", error))?;
        let prefix = if config.prefix.is_empty() { String::new() } else { format!("{}/", config.prefix) };
        Ok(Self { store, credentials, prefix })
    }

    fn path(&self, key: &Key) -> Result<Path, Fault> {
        Path::parse(format!("{}{key}", self.prefix)).map_err(|error| Fault::new(Class::Permanent, error.to_string()))
    }

    /// Asks, and once more where the credentials are refused and others are there by now.
    async fn ask<T, F>(&self, call: impl Fn() -> F) -> object_store::Result<T>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        let shown = self.credentials.current();
        match call().await {
            Err(error) if is_refusal(&error) && self.credentials.read_anew(&shown) => call().await,
            answered => answered,
        }
    }

    pub(crate) async fn put(&self, key: &Key, bytes: Vec<Bytes>) -> Result<(), Fault> {
        let path = self.path(key)?;
        let payload: PutPayload = bytes.into_iter().collect();
        self.ask(|| self.store.put(&path, payload.clone())).await.map(|_| ()).map_err(fault)
    }

    pub(crate) async fn read(
        &self,
        key: &Key,
        range: Range<u64>,
    ) -> Result<BoxStream<'static, Result<Bytes, Fault>>, Fault> {
        // S3 knows no range of nothing, and it has to be asked whether there is an object.
        let (start, end) = (range.start, range.end.max(range.start.saturating_add(1)));
        let path = self.path(key)?;
        let get = || {
            let options = GetOptions { range: Some(GetRange::Bounded(start..end)), ..GetOptions::default() };
            self.store.get_opts(&path, options)
        };
        match self.ask(get).await {
            Ok(_) if range.is_empty() => Ok(stream::empty().boxed()),
            Ok(got) => Ok(got.into_stream().map_err(fault).boxed()),
            Err(error) if is_beyond(&error) => Ok(stream::empty().boxed()),
            Err(error) => Err(fault(error)),
        }
    }

    pub(crate) async fn delete(&self, keys: &[Key]) -> Result<(), Fault> {
        let paths: Vec<Path> = keys.iter().map(|key| self.path(key)).collect::<Result<_, _>>()?;
        // Each is tried, whatever comes of another.
        let delete = || {
            let paths = stream::iter(paths.clone().into_iter().map(Ok)).boxed();
            self.store.delete_stream(paths).fold(Ok(()), |before, deleted| async {
                let deleted = deleted.map(|_| ()).or_else(|error| if is_missing(&error) { Ok(()) } else { Err(error) });
                before.and(deleted)
            })
        };
        self.ask(delete).await.map_err(fault)
    }

    pub(crate) fn list(
        self: &Arc<Self>,
        prefix: &str,
        after: Option<&Key>,
    ) -> BoxStream<'static, Result<Listed, Fault>> {
        let (s3, prefix) = (Arc::clone(self), format!("{}{prefix}", self.prefix));
        let offset = after.map(|after| format!("{}{after}", self.prefix));
        let first = Some(PaginatedListOptions { offset, ..PaginatedListOptions::default() });
        let pages = stream::try_unfold(first, move |next| {
            let (s3, prefix) = (Arc::clone(&s3), prefix.clone());
            async move {
                let Some(options) = next else { return Ok(None) };
                let (page, token) = s3.page(&prefix, &options).await?;
                let next = token.map(|token| PaginatedListOptions { page_token: Some(token), ..options });
                Ok(Some((stream::iter(page.into_iter().map(Ok)), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn page(&self, prefix: &str, options: &PaginatedListOptions) -> Result<(Vec<Listed>, Option<String>), Fault> {
        let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
        let page = self.ask(|| self.store.list_paginated(prefix, options.clone())).await.map_err(fault)?;
        let listed = page.result.objects.into_iter().filter_map(|object| self.listed(object)).collect();
        Ok((listed, page.page_token))
    }

    /// An object of ours.
    fn listed(&self, object: ObjectMeta) -> Option<Listed> {
        let key = object.location.as_ref().strip_prefix(&self.prefix)?.parse().ok()?;
        Some(Listed { key, size: object.size, modified: object.last_modified })
    }
}
