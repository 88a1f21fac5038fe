//! Why something in a computer does not reach what it asked for, as a page that people and programs can read.

use std::io;
use std::net::IpAddr;

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;

/// Why there is no way to a host.
#[derive(Debug)]
pub(super) enum Refusal {
    /// No rule of the agent's list names it.
    NotListed {
        /// What its list has.
        rules: usize,
    },
    /// It is where no agent may come.
    NotPublic(IpAddr),
    /// The agent's network is open.
    Open,
    /// Its name leads nowhere.
    Unknown(String),
    /// It does not answer.
    Unreachable(io::Error),
    /// It answered with something else than HTTP.
    Garbled(String),
    /// What was asked is no request to a proxy.
    Malformed(&'static str),
    /// The program's start is over, or the store does not answer.
    Away(String),
}

impl Refusal {
    /// Whether it is one that the agent's owner may want to know of.
    pub(super) const fn is_told(&self) -> bool {
        matches!(self, Self::NotListed { .. } | Self::NotPublic(_))
    }

    const fn status(&self) -> StatusCode {
        match self {
            Self::NotListed { .. } | Self::NotPublic(_) | Self::Open => StatusCode::FORBIDDEN,
            Self::Unknown(_) | Self::Unreachable(_) | Self::Garbled(_) => StatusCode::BAD_GATEWAY,
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What stands beside the status, which is all that many programs show.
    const fn phrase(&self) -> &'static str {
        match self {
            Self::NotListed { .. } => "Not on the agent's egress list",
            Self::NotPublic(_) => "Not a public address",
            Self::Open => "The network is open",
            Self::Unknown(_) => "The name leads nowhere",
            Self::Unreachable(_) => "The host does not answer",
            Self::Garbled(_) => "The host does not speak HTTP",
            Self::Malformed(_) => "Bad Request",
            Self::Away(_) => "Try again",
        }
    }

    /// What is the matter, in one sentence that begins in the middle, and the way out where there is one.
    pub(super) fn words(&self) -> String {
        match self {
            Self::NotListed { rules: 0 } => {
                "the agent's network is closed and its egress list is empty; add the host to spec.network.egress".into()
            }
            Self::NotListed { rules } => {
                format!("none of the {rules} rules of the agent's egress list names it; add it to spec.network.egress")
            }
            Self::NotPublic(address) => format!(
                "it is at {address}, which is not a public address; only the installation's configuration can allow that, by egress.private"
            ),
            Self::Open => "the agent's network is open: go there without a proxy".into(),
            Self::Unknown(error) => format!("its name cannot be looked up: {error}"),
            Self::Unreachable(error) => format!("it cannot be reached: {error}"),
            Self::Garbled(error) => format!("its answer cannot be read: {error}"),
            Self::Malformed(what) => (*what).to_owned(),
            Self::Away(error) => format!("it cannot be told whether that is allowed: {error}"),
        }
    }

    /// The page.
    pub(super) fn page(&self, target: &str) -> Response<Body> {
        let text = format!("{target}: {}\n", self.words());
        let mut page = Response::new(Body::from(text));
        *page.status_mut() = self.status();
        page.extensions_mut().insert(ReasonPhrase::from_static(self.phrase().as_bytes()));
        page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        page
    }
}
