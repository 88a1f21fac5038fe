//! What a closed computer may reach by HTTP and HTTPS all the same.

use serde::{Deserialize, Serialize};

use super::{InvalidSpec, Network, NetworkMode};

/// Ports of a rule that names none.
const DEFAULT_PORTS: [u16; 2] = [80, 443];

/// Rules that one agent may have.
const RULES_LIMIT: usize = 256;

/// Ports that one rule may name.
const PORTS_LIMIT: usize = 64;

/// Characters that a host name may have.
const HOST_LIMIT: usize = 253;

/// A host that a closed computer may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct EgressRule {
    /// A host name, or `*.example.org` for all below it.
    pub host: String,
    /// Ports; 80 and 443 where absent.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

impl EgressRule {
    /// Its ports.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        if self.ports.is_empty() { &DEFAULT_PORTS } else { &self.ports }
    }

    fn allows(&self, host: &str, port: u16) -> bool {
        self.ports().contains(&port) && names(&self.host, host)
    }

    fn check(&self) -> Result<(), InvalidSpec> {
        let refuse = |reason: String| Err(InvalidSpec { field: "network.egress", reason });
        let host = &self.host;
        if host == "*" {
            return refuse("\"*\" is every host; use network.mode \"open\" where that is meant".into());
        }
        if !is_host_pattern(host) {
            return refuse(format!(
                "{host:?} is no host: write a name such as example.org, or *.example.org for all below it, without a scheme, port or path"
            ));
        }
        if self.ports.len() > PORTS_LIMIT || self.ports.contains(&0) {
            return refuse(format!("{host:?}: use up to {PORTS_LIMIT} ports from 1 to 65535"));
        }
        Ok(())
    }
}

impl Network {
    /// Whether a closed computer may reach this port of this host. Letters count as the same in both cases.
    #[must_use]
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.egress.iter().any(|rule| rule.allows(host, port))
    }

    pub(super) fn check(&self) -> Result<(), InvalidSpec> {
        let refuse = |reason: &str| Err(InvalidSpec { field: "network.egress", reason: reason.into() });
        if self.mode == NetworkMode::Open && !self.egress.is_empty() {
            return refuse("an open network is not limited by a list; leave it empty, or use network.mode \"closed\"");
        }
        if self.egress.len() > RULES_LIMIT {
            return refuse("use up to 256 rules");
        }
        self.egress.iter().try_for_each(EgressRule::check)
    }
}

/// Whether `pattern`, a host name or `*.` and one for all below it, names `host`.
#[must_use]
pub fn names(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern.eq_ignore_ascii_case(host),
        // The dot stays: what only ends alike is somebody else's.
        Some(tail) => host
            .split_at_checked(host.len().saturating_sub(tail.len()))
            .is_some_and(|(below, end)| !below.is_empty() && end.eq_ignore_ascii_case(tail)),
    }
}

/// Whether it can name hosts: a host name, `*.` and one for all below it, or an address.
#[must_use]
pub fn is_host_pattern(pattern: &str) -> bool {
    let host = pattern.strip_prefix("*.").unwrap_or(pattern);
    if host.parse::<std::net::IpAddr>().is_ok() {
        return host.len() == pattern.len();
    }
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.len() <= HOST_LIMIT && host.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: &str, ports: &[u16]) -> EgressRule {
        EgressRule { host: host.into(), ports: ports.to_vec() }
    }

    #[test]
    fn a_rule_names_its_host_and_ports_and_a_star_all_below_it() {
        let network = Network {
            egress: vec![rule("example.org", &[]), rule("*.example.net", &[8443]), rule("192.0.2.7", &[80])],
            ..Network::default()
        };
        for (host, port, allowed) in [
            ("example.org", 443, true),
            ("EXAMPLE.org", 80, true),
            ("example.org", 22, false),
            ("www.example.org", 443, false),
            ("a.example.net", 8443, true),
            ("a.b.Example.net", 8443, true),
            ("a.example.net", 443, false),
            ("example.net", 8443, false),
            (".example.net", 8443, false),
            ("badexample.net", 8443, false),
            ("192.0.2.7", 80, true),
            ("192.0.2.8", 80, false),
            ("", 80, false),
        ] {
            assert_eq!(network.allows(host, port), allowed, "{host}:{port}");
        }
        assert!(!Network::default().allows("example.org", 443), "nothing is allowed where nothing is listed");
    }

    #[test]
    fn what_names_no_host_is_refused_with_an_example() {
        let check = |network: &Network| network.check().map_err(|error| error.to_string());
        let of = |rule: EgressRule| Network { egress: vec![rule], ..Network::default() };
        for good in
            ["example.org", "*.example.org", "localhost", "a_b.example", "192.0.2.7", "::1", "xn--bcher-kva.example"]
        {
            check(&of(rule(good, &[443]))).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "",
            "*",
            "*.",
            "*.192.0.2.7",
            "*.*.example.org",
            "a.*.org",
            "https://example.org",
            "example.org:443",
            "example.org/path",
            "example.org.",
            ".example.org",
            "a..b",
            "-a.example",
            "bücher.example",
            "a b",
            "[::1]",
        ] {
            let error = check(&of(rule(bad, &[]))).expect_err(bad);
            assert!(error.starts_with("spec.network.egress: ") && error.contains("\""), "{error}");
        }
        check(&of(rule(&format!("{}.example", "a".repeat(64)), &[]))).expect_err("a label has 63 characters at most");
        check(&of(rule("example.org", &[0]))).expect_err("there is no port 0");
        check(&of(rule("example.org", &[1; 65]))).expect_err("64 ports");
        check(&Network { egress: vec![rule("a.org", &[]); 257], ..Network::default() }).expect_err("256 rules");
        let open = Network { mode: NetworkMode::Open, egress: vec![rule("a.org", &[])] };
        assert!(check(&open).expect_err("an open network has no list").contains("closed"));
    }
}
