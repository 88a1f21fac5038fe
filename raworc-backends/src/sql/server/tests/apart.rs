//! What is tried on servers of the tests' own: TLS, a server that is killed, one that may only be read.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use raworc_core::store::{MessageQuery, Store, StoreError};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout};

use super::database::{self, Database};
use super::own::Own;
use super::{Tested, a_connection, made_once_each, open};
use crate::sql::commits::{accept, create, message_id};
use crate::sql::convert::number;
use crate::sql::server::{DatabaseOptions, connect};
use crate::sql::store::SqlStore;
use crate::sql::whole::status;

/// How a kind of server is asked for TLS.
pub(crate) struct Words {
    /// As the end of an address that has no parameters.
    pub(crate) none: &'static str,
    pub(crate) encrypted: &'static str,
    pub(crate) signed: &'static str,
    pub(crate) named: &'static str,
    pub(crate) authority: &'static str,
    /// A certificate of one's own, and its key.
    pub(crate) own: [&'static str; 2],
}

/// A server of one kind that speaks TLS, and what it shows.
pub(crate) struct Secure {
    pub(crate) server: Own,
    files: TempDir,
}

impl Secure {
    fn start(kind: &str) -> Self {
        let files = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: String| std::fs::write(files.path().join(name), text).expect("is written");
        let (issuer, pem) = authority();
        write("ca.pem", pem);
        let (other, pem) = authority();
        write("other.pem", pem);
        for (name, issuer) in [("client", &issuer), ("stranger", &other)] {
            let key = KeyPair::generate().expect("a key");
            let mut params = CertificateParams::new(["raworc".to_owned()]).expect("a name");
            // It is another's than the authority's own.
            params.distinguished_name.push(DnType::CommonName, "raworc");
            write(&format!("{name}.pem"), params.signed_by(&key, issuer).expect("is signed").pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        let key = KeyPair::generate().expect("a key");
        // The address that it listens on is not in it, but its name is.
        let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        write("server.pem", params.signed_by(&key, &issuer).expect("is signed").pem());
        write("server.key", key.serialize_pem());
        let server = Own::start(kind, &["--tls", &files.path().display().to_string()]);
        Self { server, files }
    }

    /// A file of an authority, as an address names it.
    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("is signed").pem();
    (Issuer::new(params, key), pem)
}

/// The server of a kind, for one test at a time.
pub(crate) async fn secure(kind: &str) -> MutexGuard<'static, Secure> {
    static ALL: [OnceLock<Mutex<Secure>>; 3] = [const { OnceLock::new() }; 3];
    let at = ["postgres", "mariadb", "mysql"].iter().position(|known| *known == kind).expect("a kind of server");
    let begin = move || ALL[at].get_or_init(|| Mutex::new(Secure::start(kind_of(at))));
    tokio::task::spawn_blocking(begin).await.expect("it comes up").lock().await
}

const fn kind_of(at: usize) -> &'static str {
    ["postgres", "mariadb", "mysql"][at]
}

/// Runs a test with a server of its own, if there is one of its kind.
pub(crate) async fn on<F: Future<Output = ()>>(
    kind: &'static str,
    test: impl FnOnce(&'static str, MutexGuard<'static, Secure>) -> F,
) {
    if let Err(lack) = database::server(kind) {
        return super::not_tested(kind, &lack);
    }
    test(kind, secure(kind).await).await;
}

pub(crate) async fn tls_is_as_the_address_asks_for_it<D: Tested>(kind: &'static str, own: MutexGuard<'static, Secure>) {
    let url = |host: &str, parameters: &[&str]| {
        let url = own.server.url().replace("127.0.0.1", host);
        format!("{url}?{}", parameters.join("&"))
    };
    let authority = |name: &str| format!("{}={}", D::TLS.authority, own.file(name));
    let (ours, other, missing) = (authority("ca.pem"), authority("other.pem"), authority("missing.pem"));

    // Where it is as it should be, a store is at work by it, and all its connections are encrypted.
    for (host, parameters) in [
        ("localhost", vec![D::TLS.named, &*ours]),
        ("127.0.0.1", vec![D::TLS.signed, &*ours]),
        ("127.0.0.1", vec![D::TLS.encrypted]),
    ] {
        let options = DatabaseOptions::new(url(host, &parameters));
        let (to, _) = D::options(&options).expect("a good address");
        let mut conn = connect::<D>(&to).await.unwrap_or_else(|error| panic!("{host} {parameters:?}: {error}"));
        assert!(D::is_encrypted(&mut conn).await.expect("says so"), "{host} {parameters:?}");
        let store = SqlStore::<D>::open(options).await.unwrap_or_else(|error| panic!("{host} {parameters:?}: {error}"));
        let (agent, made) = create(&format!("{}-{}", host.replace('.', "-"), parameters.len()));
        store.commit(made).await.expect("goes through");
        assert!(store.agent_by_id(agent).await.expect("answers").value.is_some());
        store.close().await;
    }

    // Else it is refused, with the way out.
    let refused = [
        ("localhost", vec![D::TLS.named, &*other], vec!["certificate", D::TLS.authority]),
        ("localhost", vec![D::TLS.signed, &*other], vec!["certificate", D::TLS.authority]),
        ("localhost", vec![D::TLS.named], vec!["certificate", D::TLS.authority]),
        ("127.0.0.1", vec![D::TLS.named, &*ours], vec!["certificate", "name the host"]),
        ("localhost", vec![D::TLS.named, &*missing], vec!["missing.pem", D::TLS.authority]),
    ];
    for (host, parameters, parts) in refused {
        let told = refusal::<D>(&url(host, &parameters)).await;
        for part in parts {
            assert!(told.contains(part), "{host} {parameters:?}: {told}");
        }
    }

    // One that speaks none is told from one that is not there.
    let without = Own::start(kind, &["--no-tls"]);
    let plain = without.url();
    for parameters in [vec![D::TLS.encrypted], vec![D::TLS.named, &*ours]] {
        let told = refusal::<D>(&format!("{plain}?{}", parameters.join("&"))).await;
        assert!(told.contains("TLS") && told.contains("set it up in the server"), "{told}");
    }
}

pub(crate) async fn a_certificate_of_ones_own_is_shown<D: Tested>(
    _kind: &'static str,
    own: MutexGuard<'static, Secure>,
) {
    Database::with(own.server.url(), async |database| {
        let user = D::url_of_a_certified_user(&database).await.expect("may be made");
        let [certificate, key] = D::TLS.own;
        let with = |name: &str| {
            let [file, key_file] = ["pem", "key"].map(|end| own.file(&format!("{name}.{end}")));
            format!("{user}?{}&{certificate}={file}&{key}={key_file}", D::TLS.encrypted)
        };
        let store = SqlStore::<D>::open(DatabaseOptions::new(with("client"))).await.expect("it is let in");
        let (agent, made) = create("one");
        store.commit(made).await.expect("goes through");
        assert!(store.agent_by_id(agent).await.expect("answers").value.is_some());
        store.close().await;

        // By the same user and password, nobody else is.
        refusal::<D>(&format!("{user}?{}", D::TLS.encrypted)).await;
        for (name, part) in [("stranger", "refuses the certificate"), ("missing", "missing.pem")] {
            let told = refusal::<D>(&with(name)).await;
            assert!(told.contains(part) && told.contains(certificate), "{told}");
        }
    })
    .await;
}

/// What is said where a store cannot be opened as it is set up. A server that refuses a certificate may have gone before it is
/// heard, so it is asked a few times.
async fn refusal<D: Tested>(url: &str) -> String {
    let mut error = SqlStore::<D>::open(DatabaseOptions::new(url)).await.expect_err("is refused");
    for _ in 0..5 {
        if matches!(error, StoreError::Unavailable { .. }) {
            error = SqlStore::<D>::open(DatabaseOptions::new(url)).await.expect_err("is refused");
        }
    }
    assert!(matches!(error, StoreError::Unusable { .. }), "{error:?}");
    error.to_string()
}

pub(crate) async fn a_server_that_is_set_up_otherwise_keeps_texts_as_they_are<D: Tested>(
    _kind: &'static str,
    own: MutexGuard<'static, Secure>,
) {
    let texts = ["it's", "\\", "\\'", "a\\'; --", "''", "ends with \\", "\"\"", "a\0b", "%_?", "{keys}", "\u{1F600}"];
    Database::with(own.server.url(), async |database| {
        database.at_server(D::OTHERWISE.0).await.expect("the user may set it up");
        let store = open::<D>(&database).await;
        let (agent, made) = create("one");
        store.commit(made).await.expect("goes through");
        for text in texts {
            store.commit(accept(agent, message_id(), text)).await.unwrap_or_else(|error| panic!("{text:?}: {error}"));
        }
        let kept = store.messages(&MessageQuery::of(agent)).await.expect("answers").items;
        let kept: Vec<_> = kept.iter().map(|message| message.text()).collect();
        assert_eq!(kept, texts);
        store.close().await;
        database.at_server(D::OTHERWISE.1).await.expect("and takes it back");
    })
    .await;
}

pub(crate) async fn who_works_on_all_of_a_store_takes_as_long_as_it_takes_whatever_limits_there_are<D: Tested>(
    _kind: &'static str,
    own: MutexGuard<'static, Secure>,
) {
    Database::with(own.server.url(), async |database| {
        open::<D>(&database).await.close().await;
        database.at_server(D::LIMITS.0).await.expect("the user may set them");
        let slept = async |conn: &mut D::Connection| {
            let rows = status::run::<D>(conn, D::TWO_SECONDS).await;
            rows.is_ok_and(|rows| rows.first().is_some_and(|row| number(row, 0).is_ok_and(|slept| slept == 0)))
        };
        let mut conn = a_connection::<D>(&database).await;
        let limits = async |conn: &mut D::Connection| {
            let rows = status::run::<D>(conn, D::LIMITS_LEFT).await.expect("answers");
            number(&rows[0], 0).expect("a number")
        };
        let before = (limits(&mut conn).await > 0, slept(&mut conn).await);
        status::run::<D>(&mut conn, D::PATIENT).await.expect("may be said");
        let after = (limits(&mut conn).await, slept(&mut conn).await);
        let mut whole = SqlStore::<D>::whole(&DatabaseOptions::new(database.url())).await.expect("can be used");
        let verified = whole.verify(&|_, _| {}).await;
        whole.close().await;
        database.at_server(D::LIMITS.1).await.expect("and takes them back");
        assert_eq!(before, (true, false), "they hold for others");
        assert_eq!(after, (0, true));
        assert_eq!(verified.expect("is looked at").flawed, 0);
    })
    .await;
}

pub(crate) async fn commits_over_a_server_that_is_killed_are_made_once_each<D: Tested>(
    _kind: &'static str,
    own: MutexGuard<'static, Secure>,
) {
    let kill = async |_: Database| own.server.kill();
    Database::with(own.server.url(), |database| made_once_each::<D>(database, 3, kill)).await;
}

pub(crate) async fn what_may_only_be_read_is_told_and_goes_on_once_it_may_be_written_to<D: Tested>(
    _kind: &'static str,
    own: MutexGuard<'static, Secure>,
) {
    Database::with(own.server.url(), |database| async move {
        let url = D::url_of_a_plain_user(&database).await.expect("may be made");
        let options = DatabaseOptions::new(url);
        let store = Arc::new(SqlStore::<D>::open(options).await.expect("the database can be used"));
        let (agent, made) = create("one");
        store.commit(made).await.expect("goes through");

        D::read_only(&database, true).await.expect("may be set");
        let commit = accept(agent, message_id(), "hello");
        let error = timeout(Duration::from_secs(60), store.commit(commit.clone())).await.expect("in time");
        let error = error.expect_err("may not be written to");
        let told = error.to_string();
        assert!(matches!(error, StoreError::Unavailable { .. }) && error.is_retryable(), "{error:?}");
        assert!(told.contains("is read-only") && told.contains("may be written to"), "{told}");
        // The next one is not waited for as long, and who reads is answered.
        let began = Instant::now();
        store.commit(commit.clone()).await.expect_err("may still not be written to");
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let inbox = store.agent_by_id(agent).await.expect("can be read").value.expect("is there").inbox;
        assert_eq!(inbox.last_seq, 0);

        // Whoever waits when it may be written to again is served.
        let waiting = tokio::spawn({
            let (store, commit) = (Arc::clone(&store), commit.clone());
            async move {
                loop {
                    match store.commit(commit.clone()).await {
                        Ok(committed) => return committed.messages[0].seq,
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                }
            }
        });
        D::read_only(&database, false).await.expect("may be set");
        assert_eq!(timeout(Duration::from_secs(60), waiting).await.expect("in time").expect("does not panic"), 1);
        store.close().await;
        let fresh = open::<D>(&database).await;
        assert_eq!(fresh.head().await.expect("answers").value.0, 2);
        fresh.close().await;
    })
    .await;
}
