//! Where an engine answers, found as Docker's own command line finds it.
//!
//! What is named outright comes first, then `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context of Docker's configuration,
//! and this machine's socket.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// This machine's engine.
const SOCKET: &str = "unix:///var/run/docker.sock";

/// Where Docker's command line looks where it is told to use TLS and nothing else.
const WITH_TLS: &str = "tcp://localhost:2376";

/// What an address looks like.
const SHAPES: &str = "name it as unix:///PATH or tcp://HOST:PORT";

/// The name of the context that is none: the variables, or this machine's socket.
const NO_CONTEXT: &str = "default";

/// Why an engine has no address that can be used, with the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAddress(String);

fn invalid<T>(reason: impl Into<String>) -> Result<T, InvalidAddress> {
    Err(InvalidAddress(reason.into()))
}

/// Where an engine answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineAddress {
    /// `unix:///path` or `tcp://host:port`.
    pub host: String,
    /// For TLS: the directory with `ca.pem`, and `cert.pem` with `key.pem` where the engine asks who calls.
    pub tls: Option<PathBuf>,
    /// What named it: a key, a variable, a context, or nothing but this machine.
    pub named_by: String,
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

/// What is named outright.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Named {
    /// The address.
    pub host: Option<String>,
    /// The directory of TLS, for it and for `DOCKER_HOST`.
    pub tls: Option<PathBuf>,
}

impl Named {
    /// This address, where there is one.
    #[must_use]
    pub fn host(host: Option<String>) -> Self {
        Self { host, tls: None }
    }

    /// With this directory, where there is one.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<PathBuf>) -> Self {
        self.tls = tls;
        self
    }
}

impl EngineAddress {
    /// The address by what is `named` outright, this process's variables and Docker's configuration.
    ///
    /// # Errors
    /// Where a context is named that is not there, or a file of Docker's configuration cannot be read.
    pub fn find(named: &Named) -> Result<Self, InvalidAddress> {
        let variable = |name: &str| std::env::var(name).ok();
        Surroundings { variable: &variable, read: &|path| std::fs::read_to_string(path) }.find(named)
    }
}

/// What an address depends on beside what is named outright.
struct Surroundings<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    read: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// What is read of `config.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    current_context: String,
}

/// What is read of a context's `meta.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Meta {
    #[serde(default)]
    endpoints: HashMap<String, Endpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    #[serde(default)]
    host: String,
    #[serde(default, rename = "SkipTLSVerify")]
    skip_tls_verify: bool,
}

impl Surroundings<'_> {
    fn find(&self, named: &Named) -> Result<EngineAddress, InvalidAddress> {
        let found = if let Some(host) = &named.host {
            self.outright(host, "docker.host", named)?
        } else if let Some(host) = self.variable("DOCKER_HOST") {
            self.outright(&host, "DOCKER_HOST", named)?
        } else if let Some((context, named_by)) = self.context()? {
            self.of_context(&context, named_by)?
        } else if let Some(tls) = self.tls(named)? {
            EngineAddress { host: WITH_TLS.into(), tls: Some(tls), named_by: "DOCKER_TLS_VERIFY".into() }
        } else {
            EngineAddress { host: SOCKET.into(), tls: None, named_by: "this machine".into() }
        };
        Ok(found)
    }

    /// A variable that says something.
    fn variable(&self, name: &str) -> Option<String> {
        (self.variable)(name).filter(|value| !value.is_empty())
    }

    fn outright(&self, host: &str, named_by: &str, named: &Named) -> Result<EngineAddress, InvalidAddress> {
        let tls = if host.starts_with("unix://") { None } else { self.tls(named)? };
        Ok(EngineAddress { host: host.into(), tls, named_by: named_by.into() })
    }

    /// The directory of TLS that goes with an address that no context names.
    fn tls(&self, named: &Named) -> Result<Option<PathBuf>, InvalidAddress> {
        if named.tls.is_some() {
            return Ok(named.tls.clone());
        }
        if self.variable("DOCKER_TLS_VERIFY").is_some() {
            let directory = self.variable("DOCKER_CERT_PATH").map(PathBuf::from).or_else(|| self.directory());
            return directory.map(Some).ok_or_else(|| InvalidAddress("DOCKER_TLS_VERIFY: set DOCKER_CERT_PATH".into()));
        }
        if self.variable("DOCKER_TLS").is_some() {
            return invalid("DOCKER_TLS asks for TLS that trusts everybody; set DOCKER_TLS_VERIFY=1 instead");
        }
        Ok(None)
    }

    /// Docker's configuration.
    fn directory(&self) -> Option<PathBuf> {
        let home = || self.variable("HOME").map(|home| Path::new(&home).join(".docker"));
        self.variable("DOCKER_CONFIG").map(PathBuf::from).or_else(home)
    }

    /// The context in use, and what names it.
    fn context(&self) -> Result<Option<(String, String)>, InvalidAddress> {
        let named = match self.variable("DOCKER_CONTEXT") {
            Some(context) => Some((context, "DOCKER_CONTEXT".to_owned())),
            None => {
                let Some(path) = self.directory().map(|directory| directory.join("config.json")) else {
                    return Ok(None);
                };
                let config: Option<DockerConfig> = self.json(&path)?;
                let current = config.map(|config| config.current_context).filter(|context| !context.is_empty());
                current.map(|context| (context, path.display().to_string()))
            }
        };
        Ok(named.filter(|(context, _)| context != NO_CONTEXT))
    }

    fn of_context(&self, context: &str, named_by: String) -> Result<EngineAddress, InvalidAddress> {
        let Some(directory) = self.directory().map(|directory| directory.join("contexts")) else {
            return invalid(format!("{named_by}: set DOCKER_CONFIG to where the context {context:?} is kept"));
        };
        let key = hex::encode(Sha256::digest(context.as_bytes()));
        let path = directory.join("meta").join(&key).join("meta.json");
        let Some(meta) = self.json::<Meta>(&path)? else {
            return invalid(format!(
                "{named_by} names the context {context:?}, and there is none; `docker context ls` lists them"
            ));
        };
        let endpoint = meta.endpoints.get("docker").filter(|endpoint| !endpoint.host.is_empty());
        let Some(Endpoint { host, skip_tls_verify }) = endpoint else {
            return invalid(format!("the context {context:?} has no Docker engine"));
        };
        if *skip_tls_verify {
            let way_out = format!("`docker context update {context} --docker host={host},ca=ca.pem`");
            return invalid(format!("the context {context:?} trusts whoever answers; give it a ca: {way_out}"));
        }
        let tls = directory.join("tls").join(&key).join("docker");
        let has_tls = ["ca.pem", "cert.pem", "key.pem"].iter().any(|file| (self.read)(&tls.join(file)).is_ok());
        let tls = (has_tls && !host.starts_with("unix://")).then_some(tls);
        Ok(EngineAddress { host: host.clone(), tls, named_by: format!("the context {context:?}") })
    }

    /// What a file says; `None` where it is not there.
    fn json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, InvalidAddress> {
        match (self.read)(path) {
            Ok(text) => match serde_json::from_str(&text) {
                Ok(read) => Ok(Some(read)),
                Err(error) => invalid(format!("{} cannot be read: {error}", path.display())),
            },
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => invalid(format!("{} cannot be read: {error}", path.display())),
        }
    }
}

/// An address, as it is dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A socket of this machine.
    Socket(String),
    /// Host and port, with TLS by the files of a directory or without.
    Tcp { authority: String, tls: Option<PathBuf> },
}

impl Place {
    /// Reads an address. One of another machine is refused without TLS unless `without_tls` is said.
    pub(super) fn of(host: &str, tls: Option<&Path>, without_tls: bool) -> Result<Self, InvalidAddress> {
        match host.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Socket(path.into())),
            Some(("tcp" | "http", authority)) => {
                let authority = with_port(authority.trim_end_matches('/'), tls.is_some());
                let Some(name) = host_name(&authority) else {
                    return invalid(format!("{host:?} is no address of an engine; {SHAPES}"));
                };
                if tls.is_none() && !without_tls && !is_this_machine(name) {
                    return invalid(format!(
                        "{host} is another machine without TLS, and whoever reaches it so owns that machine; \
                         name a directory with ca.pem, cert.pem and key.pem, or say that it is meant (docker.without_tls)"
                    ));
                }
                Ok(Self::Tcp { authority, tls: tls.map(Path::to_owned) })
            }
            Some(("ssh", there)) => invalid(format!(
                "{host}: ssh is not spoken here; forward the engine's socket with \
                 `ssh -nNT -L /PATH/docker.sock:/var/run/docker.sock {there}` and name it as unix:///PATH/docker.sock"
            )),
            Some(_) | None => invalid(format!("{host:?} is no address of an engine; {SHAPES}")),
        }
    }
}

/// With Docker's own port where there is none.
fn with_port(authority: &str, with_tls: bool) -> String {
    let after_address = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    let port = if with_tls { 2376 } else { 2375 };
    if after_address.contains(':') { authority.into() } else { format!("{authority}:{port}") }
}

/// The host of `host:port`, where it is one.
fn host_name(authority: &str) -> Option<&str> {
    let (host, port) = authority.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok().then_some(address),
        None => {
            let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
            (!host.is_empty() && host.bytes().all(is_name)).then_some(host)
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests;
