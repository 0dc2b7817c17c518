//! What an object store's no means: a decision for who asked.

use std::{error, iter};

use object_store::client::{HttpError, HttpErrorKind};

use crate::{Failure, TargetError, TargetErrorKind};

/// The most of a store's own words that are passed on, in bytes.
const MAX_WORDS: usize = 300;

/// The error that a request ended with, and what was being done.
pub(super) fn target_error(doing: &str, error: &object_store::Error) -> TargetError {
    let kind = match error {
        object_store::Error::AlreadyExists { .. } => TargetErrorKind::AlreadyExists,
        object_store::Error::NotFound { .. } => TargetErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => TargetErrorKind::NotPermitted,
        object_store::Error::Precondition { .. } => TargetErrorKind::Conflict,
        object_store::Error::InvalidPath { .. }
        | object_store::Error::NotImplemented { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::UnknownConfigurationKey { .. } => TargetErrorKind::Unsupported,
        _ => kind_of(error),
    };
    TargetError::new(kind, format!("{doing}: {}", words(error)))
}

/// Whether a store says that the bucket itself, or the container, is missing.
pub(super) fn is_place_missing(error: &object_store::Error) -> bool {
    let said = error.to_string();
    ["NoSuchBucket", "ContainerNotFound", "bucket does not exist"]
        .iter()
        .any(|words| said.contains(words))
}

/// What it is for a stream that writes.
pub(super) fn failure(error: TargetError) -> Failure {
    if error.is_transient() { Failure::Retry(error) } else { Failure::Fatal(error) }
}

/// The kind of what has no name of its own: by the answer's status, else by what became of the request.
fn kind_of(error: &object_store::Error) -> TargetErrorKind {
    match causes(error).find_map(|cause| cause.downcast_ref::<HttpError>()) {
        Some(http) if http.kind() == HttpErrorKind::Timeout => TargetErrorKind::TimedOut,
        Some(_) => TargetErrorKind::Io,
        None => kind_of_words(&root_of(error)),
    }
}

/// An error, and what it is due to, to the last.
fn causes(error: &object_store::Error) -> impl Iterator<Item = &(dyn error::Error + 'static)> {
    iter::successors(Some(error as _), |cause: &&(dyn error::Error + 'static)| cause.source())
}

/// What the last of all causes says.
fn root_of(error: &object_store::Error) -> String {
    causes(error).last().map_or_else(String::new, ToString::to_string)
}

/// `object_store` does not name the type that holds the status.
fn kind_of_words(words: &str) -> TargetErrorKind {
    let status = words.split_once("status code: ").map_or("", |(_, rest)| rest);
    let is = |text| words.contains(text);
    match status.get(..3).and_then(|digits| digits.parse().ok()) {
        Some(507) => TargetErrorKind::NoSpace,
        _ if is("QuotaExceeded") || is("InsufficientStorage") => TargetErrorKind::NoSpace,
        Some(429 | 503) => TargetErrorKind::Throttled,
        _ if is("SlowDown") || is("ServerBusy") => TargetErrorKind::Throttled,
        Some(408) => TargetErrorKind::TimedOut,
        Some(405 | 411 | 413 | 501) => TargetErrorKind::Unsupported,
        Some(300..=499) => TargetErrorKind::NotPermitted,
        _ => TargetErrorKind::Io,
    }
}

/// What the store says, and why nothing could be asked of it; of a document the code and the message, as others
/// repeat what was signed; of a URL neither the parameters, which may be a signature, nor a user; and not too long.
fn words(error: &object_store::Error) -> String {
    let (mut said, root) = (error.to_string(), root_of(error));
    if !said.contains(&root) {
        said = format!("{said}: {root}");
    }
    let (before, document) = said.split_at(said.find('<').unwrap_or(said.len()));
    let told = ["Code", "Message"].into_iter().filter_map(|tag| element(document, tag));
    let said = before.to_owned() + &told.collect::<Vec<_>>().join(": ");
    let kept = said.split_inclusive(char::is_whitespace).map(|word| match word.split_once('?') {
        Some((before, _)) if before.contains("://") => format!("{} ", without_users(before)),
        _ => without_users(word),
    });
    let mut words: String = kept.collect();
    if words.len() > MAX_WORDS {
        let end = (0..=MAX_WORDS).rev().find(|at| words.is_char_boundary(*at)).unwrap_or(0);
        words.truncate(end);
        words.push_str("...");
    }
    words
}

/// A text in which no URL has a user, or a password.
fn without_users(text: &str) -> String {
    let mut parts = text.split("://");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |told, part| {
        let host = part.split(['/', '?', '#']).next().unwrap_or_default();
        let user = host.rfind('@').map_or(0, |at| at + 1);
        told + "://" + &part[user..]
    })
}

/// The text of a document's first element of a name.
fn element<'a>(document: &'a str, tag: &str) -> Option<&'a str> {
    let (_, behind) = document.split_once(&format!("<{tag}>"))?;
    behind.split_once("</").map(|(text, _)| text.trim())
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    /// As HTTP clients have it: their words leave out what the request failed by.
    #[derive(Debug)]
    struct NotSent(io::Error);

    impl fmt::Display for NotSent {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("it was not sent")
        }
    }

    impl error::Error for NotSent {
        fn source(&self) -> Option<&(dyn error::Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn what_a_request_failed_by_is_told() {
        let source = Box::new(NotSent(io::ErrorKind::ConnectionRefused.into()));
        let error = object_store::Error::Generic { store: "S3", source };
        let told = target_error("reading", &error).to_string();
        assert_eq!(told, "reading: Generic S3 error: it was not sent: connection refused");
        assert_eq!(said("short").to_string(), "writing: Generic S3 error: short");
    }

    fn said(words: &str) -> TargetError {
        let source = words.to_owned().into();
        target_error("writing", &object_store::Error::Generic { store: "S3", source })
    }

    #[test]
    fn a_stores_no_is_a_decision_for_who_asked() {
        for (words, kind) in [
            ("non-2xx status code: 503 Service Unavailable: ", TargetErrorKind::Throttled),
            ("non-2xx status code: 429 Too Many Requests: ", TargetErrorKind::Throttled),
            ("error response: <Code>SlowDown</Code>", TargetErrorKind::Throttled),
            ("non-2xx status code: 500 Internal Server Error: ", TargetErrorKind::Io),
            ("non-2xx status code: 507 Insufficient Storage: ", TargetErrorKind::NoSpace),
            ("non-2xx status code: 400 Bad Request: ", TargetErrorKind::NotPermitted),
            ("non-2xx status code: 501 Not Implemented: ", TargetErrorKind::Unsupported),
            ("connection reset", TargetErrorKind::Io),
        ] {
            assert_eq!(said(words).kind(), kind, "{words}");
        }
        assert!(matches!(failure(said("status code: 503 ")), Failure::Retry(_)));
        assert!(matches!(failure(said("status code: 400 ")), Failure::Fatal(_)));
    }

    #[test]
    fn a_signature_in_a_url_is_not_passed_on() {
        let error = said("GET http://host/key?sig=secret&se=1 failed").to_string();
        assert!(error.contains("http://host/key") && !error.contains("secret"), "{error}");
        assert!(said(&"x".repeat(9000)).to_string().len() < 400);
    }

    #[test]
    fn a_user_and_a_password_in_a_url_are_not_passed_on() {
        for words in [
            "error for url (http://me:secret@host:1/bucket/key)",
            "url='https://secret@host/x'",
            "http://me:se@cret@host/x and http://secret:@host",
        ] {
            let error = said(words).to_string();
            assert!(error.contains("://host"), "{error}");
            assert!(!error.contains("cret") && !error.contains("me:"), "{error}");
        }
        assert!(
            said("mail me@host, see http://host/a@b")
                .to_string()
                .contains("me@host, see http://host/a@b")
        );
    }

    #[test]
    fn of_a_document_the_code_and_the_message_are_passed_on() {
        let document = "status code: 403 Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code>\
            <Message>Check your key</Message><SignatureProvided>secret</SignatureProvided></Error>";
        let error = said(document);
        assert_eq!(error.kind(), TargetErrorKind::NotPermitted);
        let told = "writing: Generic S3 error: status code: 403 Forbidden: SignatureDoesNotMatch: Check your key";
        assert_eq!(error.to_string(), told);
    }
}
