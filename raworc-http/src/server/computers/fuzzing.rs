//! What fuzzers reach of the calls about files.

use axum::body::Body;
use http::{Method, Uri};

use super::files::FileQuery;
use super::reach::link_request;

/// The request over the link about the path in this query of a request to the API; none where it is refused.
#[must_use]
pub fn request_for(query: &str) -> Option<Uri> {
    let uri: Uri = format!("http://server/files?{query}").parse().ok()?;
    let query = axum::extract::Query::<FileQuery>::try_from_uri(&uri).ok()?;
    let pairs = query.checked().ok()?;
    let request = link_request(Method::GET, "/files", &pairs, Body::empty()).expect("what was checked can be sent");
    Some(request.uri().clone())
}
