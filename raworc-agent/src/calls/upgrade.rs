//! Connections of the program's own: they begin as a call and become something else.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use hyper::upgrade::Upgraded;

use super::{CALL_LIMIT, CallError, Calls, whole};

impl Calls {
    /// Opens a connection for `what`: `link`, over which the server calls back, or `egress`, a way out of the computer.
    pub(crate) async fn upgrade(&self, what: &str) -> Result<Upgraded, CallError> {
        let mut request = self.request(Method::POST, what, Bytes::new()).map(Full::new);
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Ok(protocol) = HeaderValue::try_from(format!("raworc-{what}")) {
            request.headers_mut().insert(header::UPGRADE, protocol);
        }
        let upgrade = async {
            let response = self.server.send_for_upgrade(request).await?;
            let status = response.status();
            if status != StatusCode::SWITCHING_PROTOCOLS {
                let body = whole(response.into_body()).await.unwrap_or_default();
                return Err(self.refusal(what, status, &body));
            }
            hyper::upgrade::on(response).await.map_err(|error| CallError::Away(error.to_string()))
        };
        let upgraded = tokio::time::timeout(CALL_LIMIT, upgrade).await;
        upgraded.unwrap_or_else(|_| Err(CallError::Away(format!("{what} was not opened within {CALL_LIMIT:?}"))))
    }
}
