//! A closed computer whose agent may reach some hosts: what people use there works, and nothing else is reached.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::home::{Home, Ran};
use crate::up::Up;
use crate::{Cleared, docker, raworc, run};

const IMAGE: &str = "raworc/computer:latest";

/// An address of this machine that programs do not take for their own computer's.
const PLACE: &str = "127.0.0.2";

/// Where this machine keeps whom it trusts, which may be more than the image knows of.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Whom the tools in the computer trust.
const TRUST: &str = "export PIP_CERT=/agent/ca.pem NODE_EXTRA_CA_CERTS=/agent/ca.pem npm_config_cafile=/agent/ca.pem;";

pub(crate) fn what_is_listed_is_reached_by_what_people_use() {
    let home = Home::new();
    let _cleared = Cleared(&home);
    run(&home, &["image", "build"]).ok();
    let sites = hosts_of(
        r"cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | sed -n 's|^[^#]*://\([^/ ]*\)/.*|\1|p' | sort -u",
    );
    let [index, files] = hosts_of(
        "python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.netloc); print(PyPI.file_storage_domain)'",
    )
    .try_into()
    .expect("the index of packages and where their files are");
    let port = serve(repository(&home));
    let place = format!("{PLACE}:{port}");
    let mut listed = private(PLACE, &[PLACE.parse().expect("an address")]);
    for host in sites.iter().chain([&index, &files]) {
        // A machine may reach the outside by addresses that are none of the outside's.
        let top = host.rsplit('.').next().unwrap_or_default();
        listed += &private(&format!("*.{top}"), &addresses(host));
    }
    std::fs::write(home.path().join("raworc.toml"), listed).expect("written");
    let _up =
        Up::of(raworc(&home, &["up", "--runtime", "docker", "--listen", "127.0.0.1:0", "-o", "json", "--log", "warn"]));

    let allowed: Vec<&str> = sites.iter().map(String::as_str).chain([place.as_str(), &index]).collect();
    run(&home, &[&["agent", "create", "ada", "--root", "--wait"], &rules(&allowed)[..]].concat()).ok();
    let outside = inside(&home, "cat /proc/net/dev | tail -n +3 | grep -v ' lo:' | wc -l");
    assert_eq!(outside.ok(), "0\n", "there is no interface but loopback");

    // curl and git.
    assert_eq!(inside(&home, &format!("curl -sS http://{place}/page")).ok(), "a page\n");
    let cloned = inside(&home, &format!("git clone -q http://{place}/repository.git clone && cat clone/file"));
    assert_eq!(cloned.ok(), "in the repository\n");
    let refused = inside(&home, "curl -sS http://elsewhere.example/");
    assert!(refused.out.contains("spec.network.egress"), "a page says why: {refused:#?}");
    let refused = inside(&home, "curl -sS https://elsewhere.example/; git clone -q https://elsewhere.example/a.git");
    assert!(refused.code != 0 && refused.err.matches("403").count() >= 2, "{refused:#?}");
    run(&home, &["send", "ada", "!curl -sS http://by-a-message.example/"]).ok();
    let history = run(&home, &["history", "ada", "--steps"]).ok();
    assert!(history.contains("egress refused: by-a-message.example:80"), "the refusal is a step: {history}");

    // apt, which brings npm and a browser.
    let apt = "apt-get -qq -o Acquire::Retries=5";
    inside(&home, &format!("{apt} update")).ok();
    let install = "install -y --no-install-recommends -o Dpkg::Options::=--force-unsafe-io npm chromium";
    inside(&home, &format!("{apt} {install}")).ok();

    // pip, which the refusal tells where else it goes, and which tries five times unasked. The list counts from the next
    // connection on.
    run(&home, &["agent", "cp", AUTHORITIES, "ada:ca.pem"]).ok();
    let download = "pip download -q --no-deps --no-cache-dir -d packages idna";
    let refused = inside(&home, download);
    assert!(refused.code != 0 && refused.err.contains("403 Not on the agent's egress list"), "{refused:#?}");
    assert!(refused.err.contains(&files), "{refused:#?}");
    let registry = host_of(inside(&home, "npm config get registry").ok().trim());
    let allowed: Vec<&str> = allowed.into_iter().chain([files.as_str(), &registry]).collect();
    run(&home, &[&["agent", "edit", "ada"], &rules(&allowed)[..]].concat()).ok();
    inside(&home, download).ok();
    assert!(inside(&home, "ls packages").ok().starts_with("idna-"));

    // npm.
    let packed = inside(&home, "npm pack --silent --fetch-retries 5 is-odd").ok();
    assert!(packed.starts_with("is-odd-"), "{packed}");

    // A browser.
    let browse = "chromium --headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --user-data-dir=/tmp/browser --dump-dom";
    let shown = inside(&home, &format!("{browse} http://{}/", sites[0])).ok();
    assert!(shown.contains("</html>") && !shown.contains("spec.network.egress"), "{shown}");
    let refused = inside(&home, &format!("{browse} http://elsewhere.example/")).ok();
    assert!(refused.contains("spec.network.egress"), "{refused}");
}

/// What a script in a computer of its own prints, with the engine's network.
fn hosts_of(script: &str) -> Vec<String> {
    let hosts: Vec<String> = docker(&["run", "--rm", IMAGE, "sh", "-c", script]).lines().map(str::to_owned).collect();
    assert!(!hosts.is_empty(), "{script} names none");
    hosts
}

fn host_of(url: &str) -> String {
    let host = url.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    host.unwrap_or_else(|| panic!("{url} is no address")).to_owned()
}

fn addresses(host: &str) -> Vec<IpAddr> {
    (host, 443)
        .to_socket_addrs()
        .unwrap_or_else(|error| panic!("{host}: {error}"))
        .map(|address| address.ip())
        .collect()
}

/// The configuration's word for a name and where it may be.
fn private(host: &str, addresses: &[IpAddr]) -> String {
    let ranges: Vec<String> =
        addresses.iter().map(|address| format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })).collect();
    format!("[[egress.private]]\nhost = {host:?}\nranges = {ranges:?}\n")
}

fn rules<'a>(hosts: &[&'a str]) -> Vec<&'a str> {
    hosts.iter().flat_map(|host| ["--egress", host]).collect()
}

fn inside(home: &Home, script: &str) -> Ran {
    run(home, &["agent", "exec", "ada", "--", "sh", "-c", &format!("{TRUST} {script}")])
}

/// A repository that is served by its files, and a page beside it.
fn repository(home: &Home) -> PathBuf {
    let served = home.path().join("served");
    let script = "set -e; mkdir -p work served; cd work; git init -q; echo 'in the repository' > file; git add file
        git -c user.name=a -c user.email=a@example.org commit -qm first
        git clone -q --bare . ../served/repository.git; git -C ../served/repository.git update-server-info
        echo 'a page' > ../served/page";
    let made = Command::new("sh").args(["-c", script]).current_dir(home.path()).status().expect("a shell");
    assert!(made.success(), "git makes a repository");
    served
}

/// Serves the files below a directory, until the test's process ends.
fn serve(directory: PathBuf) -> u16 {
    let listener = TcpListener::bind((PLACE, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &directory);
        }
    });
    port
}

fn answer(stream: TcpStream, directory: &Path) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut lines = stream.by_ref().lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    let path = first.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
    let (status, body) = match std::fs::read(directory.join(path.trim_start_matches('/'))) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    stream.get_mut().write_all(&[head.as_bytes(), &body].concat())
}
