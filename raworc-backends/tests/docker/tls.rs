//! The engine of this machine behind TLS that asks who calls, as an engine on another machine is.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Trial;
use raworc_backends::docker::{DockerOptions, DockerRuntime};
use raworc_core::ids::RuntimeName;
use raworc_core::runtime::{Runtime, RuntimeError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::machine::{IMAGE, Machine, host, name, spec, trial};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("computers_live_on_an_engine_behind_tls_that_knows_us", computers_live_behind_tls),
        trial("an_engine_that_another_authority_vouches_for_is_not_trusted", another_authority),
        trial("a_certificate_that_the_engine_does_not_take_is_named", our_certificate_is_not_taken),
        trial("without_a_certificate_it_is_told_that_the_engine_asks_for_one", no_certificate),
        trial("files_of_tls_that_are_missing_or_none_are_named", files_that_are_missing),
    ]
}

/// Somebody who vouches.
struct Authority {
    params: CertificateParams,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { params, key: KeyPair::generate().expect("a key") }
    }

    fn certificate(&self) -> rcgen::Certificate {
        self.params.self_signed(&self.key).expect("signed")
    }

    /// A certificate for this name or address, and its key.
    fn vouch(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        (params.signed_by(&key, &issuer).expect("signed"), key)
    }

    fn trusted(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate().der().clone()).expect("an authority");
        Arc::new(roots)
    }
}

/// Passes on to the engine what comes over TLS from whom `authority` vouches for.
struct Door {
    address: SocketAddr,
    authority: Authority,
    serving: JoinHandle<()>,
}

impl Door {
    async fn open() -> Self {
        let authority = Authority::new("the engine's");
        let (certificate, key) = authority.vouch("127.0.0.1");
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let asks = WebPkiClientVerifier::builder_with_provider(authority.trusted(), Arc::clone(&provider));
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(asks.build().expect("a verifier"))
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let host = host();
                    let _ended = match host.strip_prefix("unix://") {
                        Some(path) => {
                            let mut engine = UnixStream::connect(path).await.expect("the engine");
                            tokio::io::copy_bidirectional(&mut stream, &mut engine).await
                        }
                        None => {
                            let address = host.trim_start_matches("tcp://").to_owned();
                            let mut engine = TcpStream::connect(address).await.expect("the engine");
                            tokio::io::copy_bidirectional(&mut stream, &mut engine).await
                        }
                    };
                });
            }
        });
        Self { address, authority, serving }
    }

    fn host(&self) -> String {
        format!("tcp://{}", self.address)
    }

    /// The files of somebody who trusts `trusted`, and whom `vouched` vouches for.
    fn files(trusted: &Authority, vouched: Option<&Authority>) -> TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| std::fs::write(directory.path().join(name), text).expect("written");
        write("ca.pem", trusted.certificate().pem());
        if let Some(authority) = vouched {
            let (certificate, key) = authority.vouch("client.test");
            write("cert.pem", certificate.pem());
            write("key.pem", key.serialize_pem());
        }
        directory
    }

    fn runtime(&self, files: &Path) -> Result<DockerRuntime, RuntimeError> {
        let name = (RuntimeName::new("docker").expect("a name"), name());
        DockerRuntime::open(DockerOptions::new(name.0, name.1, self.host(), IMAGE).with_tls(files))
    }

    /// What is told of a call with these files, which fails.
    async fn fault(&self, files: &Path) -> String {
        let runtime = self.runtime(files).expect("opened");
        let error = runtime.list().await.expect_err("no answer");
        assert!(error.is_retryable(), "nothing is taken for gone: {error}");
        error.to_string()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn computers_live_behind_tls() {
    let door = Door::open().await;
    let files = Door::files(&door.authority, Some(&door.authority));
    // What it says is waited for, so it writes before.
    let script = "kept=$(cat kept 2>/dev/null); echo here > kept; echo it runs; echo $kept; sleep 1000";
    let machine = Machine::with(script, |mut options| {
        options.host = door.host();
        options.with_tls(files.path())
    });
    let made = machine.made().await;
    for said in ["it runs\n", "it runs\nhere\n"] {
        // The boot line goes over the connection that the engine turns over, and so does its end.
        let start = machine.start(&made).await;
        assert!(machine.said(made.id, said).await.contains(said));
        machine.runtime.stop(made.id, &start, std::time::Duration::ZERO).await.expect("stopped");
    }
    machine.close(&[made]).await;
}

async fn another_authority() {
    let door = Door::open().await;
    let files = Door::files(&Authority::new("somebody else's"), Some(&door.authority));
    let fault = door.fault(files.path()).await;
    let ca = files.path().join("ca.pem").display().to_string();
    assert!(
        fault.contains("is not trusted by") && fault.contains(&ca) && fault.contains(&door.address.to_string()),
        "{fault}"
    );
}

async fn our_certificate_is_not_taken() {
    let door = Door::open().await;
    let files = Door::files(&door.authority, Some(&Authority::new("somebody else's")));
    let fault = door.fault(files.path()).await;
    let certificate = files.path().join("cert.pem").display().to_string();
    assert!(fault.contains("the engine refuses the certificate") && fault.contains(&certificate), "{fault}");
}

async fn no_certificate() {
    let door = Door::open().await;
    let files = Door::files(&door.authority, None);
    let fault = door.fault(files.path()).await;
    assert!(fault.contains("the engine asks for a certificate") && fault.contains("cert.pem"), "{fault}");
}

async fn files_that_are_missing() {
    let door = Door::open().await;
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        let files = Door::files(&door.authority, Some(&door.authority));
        let path = files.path().join(name);
        for break_it in [|path: &Path| std::fs::write(path, "no PEM"), |path: &Path| std::fs::remove_file(path)] {
            break_it(&path).expect("broken");
            let error = door.runtime(files.path()).expect_err("not opened").to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
        }
    }
    let machine = Machine::new("");
    machine.runtime.remove(spec().id).await.expect("the engine itself is well");
    machine.close(&[]).await;
}
