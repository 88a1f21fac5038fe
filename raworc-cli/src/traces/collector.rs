//! [`Collector`]: requests to the collector, by this process's own client.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{Request, Response, Uri};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::runtime::Handle;

/// Bytes that an answer may hold: how many spans were not taken, and why.
const ANSWER: usize = 64 << 10;

/// The collector. It is asked by a thread that is none of the runtime's; what it is asked for runs there.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    client: reqwest::Client,
    runtime: Handle,
    /// Whether it was said that it does not answer.
    away: Arc<AtomicBool>,
}

impl Collector {
    pub(super) fn new(address: &Uri, limit: Duration) -> reqwest::Result<Self> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(limit)
            .user_agent(concat!("raworc/", env!("CARGO_PKG_VERSION")));
        if address.scheme_str() == Some("http") {
            // A machine without any authorities can still tell its own collector.
            builder = builder.tls_certs_only([]);
        }
        let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
        if host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) {
            builder = builder.no_proxy();
        }
        Ok(Self { client: builder.build()?, runtime: Handle::current(), away: Arc::default() })
    }

    fn note(&self, fault: Option<&str>) {
        match fault {
            Some(fault) if !self.away.swap(true, Ordering::Relaxed) => {
                tracing::warn!(fault, "the collector of traces takes no spans; they are dropped until it does");
            }
            None if self.away.swap(false, Ordering::Relaxed) => {
                tracing::info!("the collector of traces takes spans again")
            }
            Some(_) | None => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = self.runtime.spawn(send(self.client.clone(), request)).await;
        let answer = sent.map_err(HttpError::from).and_then(|answer| answer);
        match &answer {
            Ok(answer) if answer.status().is_success() => self.note(None),
            Ok(answer) => self.note(Some(&format!("it answered with status {}", answer.status().as_u16()))),
            Err(error) => self.note(Some(&with_causes(&**error))),
        }
        answer
    }
}

fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn send(client: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    // The address may lead where not everybody may know of.
    let plain = |error: reqwest::Error| HttpError::from(error.without_url());
    let request = reqwest::Request::try_from(request).map_err(plain)?;
    let mut answer = client.execute(request).await.map_err(plain)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(plain)? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER {
            return Err("its answer is longer than 64 KiB".into());
        }
    }
    let mut response = Response::new(body.freeze());
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}
