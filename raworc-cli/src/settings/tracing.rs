//! Traces: where they are told, and how many of them.

use axum::http::Uri;
use serde::Deserialize;

use crate::exit::{Exit, Failure};

/// What a collector adds to its address for traces.
const PATH: &str = "/v1/traces";

/// Traces.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tracing {
    /// The collector that is told of them.
    pub otlp: Option<String>,
    /// The part of them of which it is told.
    pub sample: f64,
}

impl Tracing {
    /// Where the collector takes spans; none where there is no collector.
    ///
    /// # Errors
    /// Where its address is none, with an example of one.
    pub fn address(&self) -> Result<Option<Uri>, Failure> {
        let Some(text) = self.otlp.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        // What cannot be used is not repeated: it may hold a password.
        let refuse = |reason| Failure::new(Exit::Usage, format!("tracing.otlp: {reason}"));
        let whole = format!("{}{PATH}", text.trim_end_matches('/').trim_end_matches(PATH));
        let address = whole.parse().ok().filter(|address: &Uri| {
            matches!(address.scheme_str(), Some("http" | "https"))
                && address.host().is_some_and(|host| !host.is_empty())
        });
        let address = address.ok_or_else(|| {
            refuse("this is no address of a collector")
                .hint("write http://HOST:PORT or https://.., such as http://127.0.0.1:4318")
        })?;
        if address.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refuse("the address holds a password")
                .hint("write the header that the collector asks for in OTEL_EXPORTER_OTLP_HEADERS, such as authorization=Basic .."));
        }
        if text.contains(['?', '#']) {
            return Err(refuse("the address has a query or a fragment")
                .hint("leave it out; a header that the collector asks for stands in OTEL_EXPORTER_OTLP_HEADERS"));
        }
        Ok(Some(address))
    }

    pub(super) fn check(&self) -> Result<(), Failure> {
        if (0.0..=1.0).contains(&self.sample) {
            return Ok(());
        }
        Err(Failure::new(Exit::Usage, format!("tracing.sample: {} cannot be had", self.sample))
            .hint("choose 0 to 1, such as 0.1 for a tenth of the traces"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(otlp: &str, sample: f64) -> Result<Option<String>, Failure> {
        let tracing = Tracing { otlp: Some(otlp.to_owned()), sample };
        tracing.check()?;
        Ok(tracing.address()?.map(|address| address.to_string()))
    }

    #[test]
    fn a_collector_is_told_at_the_path_for_traces_whether_or_not_that_is_written() {
        for text in ["http://10.0.0.1:4318", "http://10.0.0.1:4318/", "http://10.0.0.1:4318/v1/traces"] {
            assert_eq!(of(text, 1.0).expect(text).as_deref(), Some("http://10.0.0.1:4318/v1/traces"));
        }
        assert_eq!(
            of("https://t.example.org/otlp", 0.0).expect("good").as_deref(),
            Some("https://t.example.org/otlp/v1/traces")
        );
        assert_eq!(of("", 1.0).expect("none"), None);
    }

    #[test]
    fn what_is_no_collector_or_no_part_is_refused_and_no_password_is_repeated() {
        for text in
            ["collector:4318", "grpc://collector:4317", "http://", "http://ada:hidden@collector:4318", "not at all"]
        {
            let refused = of(text, 1.0).expect_err(text);
            assert!(!format!("{refused:?}").contains("hidden"), "{refused:?}");
        }
        for sample in [-0.1, 1.1, f64::NAN] {
            assert!(of("http://collector:4318", sample).is_err(), "{sample}");
        }
    }
}
