//! Files, and what a computer uses.

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, header};
use raworc_core::control::ActivityKind;
use raworc_core::program::{ComputerStats, FileEntry};

use super::reach::{ANSWER_LIMIT, Visit, link_request};
use crate::api::ErrorBody;
use crate::server::ApiError;
use crate::server::extract::Query;

/// Bytes of a path; Linux takes no longer ones.
const PATH_LIMIT: usize = 4096;

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileQuery {
    #[serde(default = "yes")]
    wake: bool,
    path: String,
    mode: Option<String>,
    recursive: Option<bool>,
}

const fn yes() -> bool {
    true
}

impl FileQuery {
    /// The query as it goes over the link.
    pub(super) fn checked(&self) -> Result<Vec<(&str, &str)>, ApiError> {
        if self.path.is_empty() || self.path.len() > PATH_LIMIT || self.path.contains('\0') {
            return Err(ApiError::invalid("path", "use 1 to 4096 bytes without NUL"));
        }
        let mut query = vec![("path", self.path.as_str())];
        if let Some(mode) = &self.mode {
            if mode.is_empty() || mode.len() > 4 || !mode.bytes().all(|digit| (b'0'..=b'7').contains(&digit)) {
                return Err(ApiError::invalid("mode", "use octal digits, such as 644"));
            }
            query.push(("mode", mode));
        }
        if self.recursive == Some(true) {
            query.push(("recursive", "true"));
        }
        Ok(query)
    }
}

/// Read a file, or list a directory.
///
/// A file is its bytes; a directory is JSON, a list of entries.
#[utoipa::path(
    get, path = "/files", tag = "computers",
    params(("path" = String, Query, description = "relative to the agent's home, or absolute"),
           ("wake" = Option<bool>, Query, description = "whether a slept agent is woken; true where absent")),
    responses((status = 200, description = "the bytes, or the entries",
               content((Vec<FileEntry> = "application/json"), (String = "application/octet-stream"))),
              (status = 404, description = "there is no such file", body = ErrorBody),
              (status = 409, description = "the agent sleeps and wake is false", body = ErrorBody)),
)]
pub(super) async fn read(visit: Visit, Query(query): Query<FileQuery>) -> Result<Response, ApiError> {
    let pairs = query.checked()?;
    let reached = visit.look(query.wake, ActivityKind::Files).await?;
    let mut request = link_request(Method::GET, "/files", &pairs, Body::empty())?;
    request.headers_mut().insert(header::ACCEPT, http::HeaderValue::from_static("application/json"));
    reached.pass(request, Some(ANSWER_LIMIT)).await
}

/// Write a file, from the body as it comes.
#[utoipa::path(
    put, path = "/files", tag = "computers", request_body(content_type = "application/octet-stream"),
    params(("path" = String, Query, description = "relative to the agent's home, or absolute"),
           ("mode" = Option<String>, Query, description = "permission bits, in octal"),
           ("wake" = Option<bool>, Query, description = "whether a slept agent is woken; true where absent")),
    responses((status = 204, description = "written"),
              (status = 409, description = "the agent sleeps and wake is false", body = ErrorBody)),
)]
pub(super) async fn write(
    visit: Visit,
    Query(query): Query<FileQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    upload(visit, ("files.write", "/files"), &query, request).await
}

/// Remove a file, or with `recursive` a directory and all that is in it.
#[utoipa::path(
    delete, path = "/files", tag = "computers",
    params(("path" = String, Query, description = "relative to the agent's home, or absolute"),
           ("recursive" = Option<bool>, Query, description = "a directory with all that is in it"),
           ("wake" = Option<bool>, Query, description = "whether a slept agent is woken; true where absent")),
    responses((status = 204, description = "removed"),
              (status = 404, description = "there is no such file", body = ErrorBody)),
)]
pub(super) async fn remove(visit: Visit, Query(query): Query<FileQuery>) -> Result<Response, ApiError> {
    let pairs = query.checked()?;
    let reached = visit.change("files.remove", query.wake, ActivityKind::Files).await?;
    let request = link_request(Method::DELETE, "/files", &pairs, Body::empty())?;
    reached.pass(request, Some(ANSWER_LIMIT)).await
}

/// Read a whole tree, as tar.
#[utoipa::path(
    get, path = "/archive", tag = "computers",
    params(("path" = String, Query, description = "relative to the agent's home, or absolute"),
           ("wake" = Option<bool>, Query, description = "whether a slept agent is woken; true where absent")),
    responses((status = 200, description = "tar", content_type = "application/octet-stream"),
              (status = 404, description = "there is no such file", body = ErrorBody)),
)]
pub(super) async fn pack(visit: Visit, Query(query): Query<FileQuery>) -> Result<Response, ApiError> {
    let pairs = query.checked()?;
    let reached = visit.look(query.wake, ActivityKind::Files).await?;
    let request = link_request(Method::GET, "/archive", &pairs, Body::empty())?;
    reached.pass(request, Some(ANSWER_LIMIT)).await
}

/// Write a whole tree, from tar as it comes.
#[utoipa::path(
    put, path = "/archive", tag = "computers", request_body(content_type = "application/x-tar"),
    params(("path" = String, Query, description = "the directory that takes it, made where it is not there"),
           ("wake" = Option<bool>, Query, description = "whether a slept agent is woken; true where absent")),
    responses((status = 204, description = "written"),
              (status = 409, description = "the agent sleeps and wake is false", body = ErrorBody)),
)]
pub(super) async fn unpack(
    visit: Visit,
    Query(query): Query<FileQuery>,
    request: Request,
) -> Result<Response, ApiError> {
    upload(visit, ("files.unpack", "/archive"), &query, request).await
}

async fn upload(
    visit: Visit,
    (verb, path): (&'static str, &str),
    query: &FileQuery,
    request: Request,
) -> Result<Response, ApiError> {
    let pairs = query.checked()?;
    let reached = visit.change(verb, query.wake, ActivityKind::Files).await?;
    let length = request.headers().get(header::CONTENT_LENGTH).cloned();
    let mut onward = link_request(Method::PUT, path, &pairs, request.into_body())?;
    if let Some(length) = length {
        onward.headers_mut().insert(header::CONTENT_LENGTH, length);
    }
    reached.pass(onward, None).await
}

/// What the computer uses.
#[utoipa::path(
    get, path = "/stats", tag = "computers",
    responses((status = 200, description = "what it uses", body = ComputerStats),
              (status = 409, description = "the agent sleeps", body = ErrorBody)),
)]
pub(super) async fn stats(visit: Visit) -> Result<Response, ApiError> {
    let reached = visit.watch(false).await?;
    let request = link_request(Method::GET, "/stats", &[], Body::empty())?;
    reached.pass(request, Some(ANSWER_LIMIT)).await
}
