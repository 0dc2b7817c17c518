//! Object stores by URL, with what their own environment variables say.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    memory::InMemory,
    path::Path,
};

use super::{
    failure::target_error, keys::without_percents, options::ObjectOptions, server::ObjectServer,
};
use crate::{TargetError, TargetErrorKind};

impl ObjectServer {
    /// Opens the store that a URL names: `s3://bucket/prefix`, `az://container/prefix`,
    /// `gs://bucket/prefix`, or `memory:///` for one that ends with the server. Credentials, endpoints and
    /// other options are those of the environment variables that `object_store` knows (`AWS_…`, `AZURE_…`,
    /// `GOOGLE_…`).
    ///
    /// # Errors
    /// As for [`open`](ObjectServer::open); [`TargetErrorKind::Unsupported`] for a URL of another kind, or one
    /// that has a user, a password or parameters in it.
    pub fn open_url(url: &str, options: ObjectOptions) -> Result<ObjectServer, TargetError> {
        let (scheme, prefix) = parse(url)?;
        let store = store(&scheme, url)?.ok_or_else(|| {
            refused("only s3://, az://, gs:// and memory:/// are object stores here")
        })?;
        ObjectServer::open(store, prefix, options)
    }
}

/// What kind of store a URL names, and the prefix in it. What it says is not repeated: it may be a secret.
fn parse(url: &str) -> Result<(ObjectStoreScheme, Path), TargetError> {
    let (_, rest) =
        url.split_once("://").ok_or_else(|| refused("it has no scheme, as s3:// is"))?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.contains('@') || rest.contains(['?', '#']) {
        return Err(refused("credentials and options come from the environment, not in a URL"));
    }
    // Where it leads is where it seems to lead: nothing in it is resolved, or left out.
    let folders = path.strip_suffix('/').unwrap_or(path);
    if url.trim() != url || !(path.is_empty() || folders.split('/').all(is_plain)) {
        return Err(refused(
            "of its folders one is empty, '.' or '..', or has what no key may have",
        ));
    }
    let url = url::Url::parse(url).map_err(|_| refused("it is not well formed"))?;
    ObjectStoreScheme::parse(&url).map_err(|_| refused("it names no object store"))
}

/// Whether a folder in a URL is one, and no more.
fn is_plain(folder: &str) -> bool {
    let is_taken = |folder: &str| {
        let is_odd = |text: char| text.is_control() || ['/', '\\'].contains(&text);
        !["", ".", ".."].contains(&folder) && !folder.contains(is_odd)
    };
    without_percents(folder).is_some_and(|folder| is_taken(&folder))
}

/// The store of a URL; `None` for a kind that is none here.
fn store(
    scheme: &ObjectStoreScheme,
    url: &str,
) -> Result<Option<Arc<dyn ObjectStore>>, TargetError> {
    let failed = |error| target_error("opening an object store", &error);
    Ok(Some(match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let builder = AmazonS3Builder::from_env().with_url(url).with_retry(retries());
            check_endpoint(builder.get_config_value(&AmazonS3ConfigKey::Endpoint))?;
            Arc::new(builder.build().map_err(failed)?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(url).with_retry(retries());
            check_endpoint(builder.get_config_value(&GoogleConfigKey::BaseUrl))?;
            Arc::new(builder.build().map_err(failed)?)
        }
        ObjectStoreScheme::Memory => Arc::new(InMemory::new()),
        ObjectStoreScheme::MicrosoftAzure => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(url).with_retry(retries());
            check_endpoint(builder.get_config_value(&AzureConfigKey::Endpoint))?;
            Arc::new(builder.build().map_err(failed)?)
        }
        _ => return Ok(None),
    }))
}

/// Whoever makes requests of what is no URL would panic. It may hold a secret.
fn check_endpoint(endpoint: Option<String>) -> Result<(), TargetError> {
    let is_one = |endpoint: String| {
        let url = url::Url::parse(&endpoint).ok();
        url.is_some_and(|url| ["http", "https"].contains(&url.scheme()) && url.has_host())
    };
    match endpoint.is_none_or(is_one) {
        true => Ok(()),
        false => Err(refused("the endpoint in the environment is no http:// or https:// URL")),
    }
}

/// Few: what is tried again here is not seen, and a conditional put that went through and is sent again
/// answers as if it were somebody else's.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 1,
        retry_timeout: Duration::from_secs(10),
    }
}

fn refused(why: &str) -> TargetError {
    let context = format!("this URL cannot be opened: {why}");
    TargetError::new(TargetErrorKind::Unsupported, context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Name, Server};

    #[test]
    fn a_url_that_is_no_object_store_is_refused_and_no_secret_repeated() {
        for url in [
            "bucket",
            "s3:/x",
            "http://host/x",
            "file:///tmp/x",
            "ftp://x/y",
            "s3://u:secret@b/p",
            "az://c/p?sig=secret",
            "gs://b/p#secret",
            "memory://host",
        ] {
            let error = ObjectServer::open_url(url, ObjectOptions::default()).unwrap_err();
            assert_eq!(error.kind(), TargetErrorKind::Unsupported, "{url}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_prefix_is_taken_as_it_is_written_or_refused() {
        let prefix = |url| parse(url).map(|(_, prefix)| prefix.to_string());
        for (url, taken) in [
            ("memory:///", ""),
            ("s3://bucket", ""),
            ("s3://bucket/", ""),
            ("s3://bucket/a/b", "a/b"),
            ("s3://bucket/a/b/", "a/b"),
            ("s3://bucket/a%20b", "a b"),
            ("s3://bucket/a b", "a b"),
            ("gs://bucket/..a/b..", "..a/b.."),
        ] {
            assert_eq!(prefix(url).unwrap(), taken, "{url}");
        }
        for url in [
            "s3://bucket/../b",
            "s3://bucket/a/../b",
            "s3://bucket/./b",
            "s3://bucket/%2e%2E/b",
            "s3://bucket/.%2e",
            "s3://bucket//a",
            "s3://bucket/a//b",
            "s3://bucket/a%2Fb",
            "s3://bucket/a%5cb",
            "s3://bucket/a\\..\\b",
            "s3://bucket/a%00b",
            "s3://bucket/a%0ab",
            "s3://bucket/%ff",
            "s3://bucket/a%zz",
            "s3://bucket/a\nb",
            "memory:////",
            "az://container//",
            "s3:///a",
        ] {
            let error = prefix(url).unwrap_err();
            assert_eq!(error.kind(), TargetErrorKind::Unsupported, "{url}");
        }
    }

    #[test]
    fn a_store_that_nobody_answers_for_is_away_and_not_empty() {
        // Nobody listens there any more.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let store = AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{port}"))
            .with_allow_http(true)
            .with_bucket_name("bucket")
            .with_region("region")
            .with_access_key_id("id")
            .with_secret_access_key("secret")
            .with_retry(retries())
            .build()
            .unwrap();
        let (store, prefix) = (Arc::new(store), Path::ROOT);
        let options = ObjectOptions::default();
        let server = ObjectServer::open(store, prefix, options).unwrap();
        let opened = server.open(&Name::new("file").unwrap()).map(drop);
        for error in [server.probe().unwrap_err(), opened.unwrap_err()] {
            let is_away = error.is_transient() && error.kind() != TargetErrorKind::Throttled;
            assert!(is_away, "{error:?}");
        }
    }

    #[test]
    fn a_store_in_memory_is_opened_by_its_url() {
        let server = ObjectServer::open_url("memory:///a/b", ObjectOptions::default()).unwrap();
        assert_eq!(server.list().unwrap(), []);
        assert!(format!("{server:?}").contains("a/b"), "{server:?}");
    }
}
