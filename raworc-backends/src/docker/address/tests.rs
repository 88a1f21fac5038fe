use super::*;

/// The key of the context `far`, as Docker's command line writes it: `printf far | sha256sum`.
const FAR: &str = "512eea46ceb3921dff4363c7069d89d4964d1d9fccaa0f411851a7aa60a5c868";

fn find(named: &Named, variables: &[(&str, &str)], files: &[(&str, &str)]) -> Result<EngineAddress, InvalidAddress> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let files: HashMap<_, _> = files.iter().map(|&(path, text)| (PathBuf::from(path), text)).collect();
    let variable = |name: &str| variables.get(name).map(|&value| value.to_owned());
    let read = |path: &Path| {
        let text = files.get(path).map(|&text| text.to_owned());
        text.ok_or_else(|| io::Error::from(ErrorKind::NotFound))
    };
    Surroundings { variable: &variable, read: &read }.find(named)
}

fn nothing() -> Named {
    Named::default()
}

fn tls(directory: &str) -> Option<PathBuf> {
    Some(directory.into())
}

/// The files of the context `far`.
fn context(meta: &str, with_tls: bool) -> Vec<(String, &str)> {
    let mut files = vec![(format!("/home/ada/.docker/contexts/meta/{FAR}/meta.json"), meta)];
    if with_tls {
        files.push((format!("/home/ada/.docker/contexts/tls/{FAR}/docker/ca.pem"), ""));
    }
    files
}

fn borrowed<'a>(files: &'a [(String, &'a str)]) -> Vec<(&'a str, &'a str)> {
    files.iter().map(|(path, text)| (path.as_str(), *text)).collect()
}

const META: &str =
    r#"{"Name": "far", "Metadata": {}, "Endpoints": {"docker": {"Host": "tcp://far:2376", "SkipTLSVerify": false}}}"#;

#[test]
fn what_is_named_outright_wins_over_the_variable_the_variable_over_a_context_and_a_context_over_the_socket() {
    let config = ("/home/ada/.docker/config.json", r#"{"auths": {}, "currentContext": "far"}"#);
    let of_far = context(META, false);
    let mut files = borrowed(&of_far);
    files.push(config);
    let home = ("HOME", "/home/ada");
    let host = |named: &Named, variables: &[(&str, &str)], files: &[(&str, &str)]| {
        find(named, variables, files).expect("an address").host
    };
    let outright = Named::host(Some("tcp://own:1".into()));
    let all = [home, ("DOCKER_HOST", "tcp://variable:2"), ("DOCKER_CONTEXT", "far")];
    assert_eq!(host(&outright, &all, &files), "tcp://own:1");
    assert_eq!(host(&nothing(), &all, &files), "tcp://variable:2");
    assert_eq!(
        host(&nothing(), &[home, ("DOCKER_HOST", ""), ("DOCKER_CONTEXT", "far")], &of_far_alone(&files)),
        "tcp://far:2376"
    );
    assert_eq!(host(&nothing(), &[home], &files), "tcp://far:2376");
    assert_eq!(host(&nothing(), &[home, ("DOCKER_CONTEXT", "default")], &files), SOCKET);
    assert_eq!(host(&nothing(), &[home], &[]), SOCKET);
    assert_eq!(host(&nothing(), &[], &[]), SOCKET);
}

fn of_far_alone<'a>(files: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    files.iter().copied().filter(|(path, _)| !path.ends_with("config.json")).collect()
}

#[test]
fn tls_is_that_of_the_variables_of_the_configuration_or_of_the_context() {
    let found = |variables: &[(&str, &str)], files: &[(&str, &str)]| {
        find(&nothing(), variables, files).expect("an address").tls
    };
    let (home, host, verify) = (("HOME", "/home/ada"), ("DOCKER_HOST", "tcp://there:1"), ("DOCKER_TLS_VERIFY", "1"));
    assert_eq!(found(&[home, host], &[]), None);
    assert_eq!(found(&[home, host, ("DOCKER_CERT_PATH", "/certs")], &[]), None, "nobody asked for TLS");
    assert_eq!(found(&[home, host, verify, ("DOCKER_CERT_PATH", "/certs")], &[]), tls("/certs"));
    assert_eq!(found(&[home, host, verify], &[]), tls("/home/ada/.docker"));
    assert_eq!(found(&[home, host, verify, ("DOCKER_CONFIG", "/etc/docker")], &[]), tls("/etc/docker"));
    assert_eq!(found(&[("DOCKER_HOST", "unix:///x"), verify, ("DOCKER_CERT_PATH", "/certs")], &[]), None);
    let named = Named::host(Some("tcp://there:1".into())).with_tls(tls("/own"));
    assert_eq!(find(&named, &[verify], &[]).expect("an address").tls, tls("/own"));
    let alone = find(&nothing(), &[verify, ("DOCKER_CERT_PATH", "/certs")], &[]).expect("an address");
    assert_eq!((alone.host.as_str(), alone.tls), (WITH_TLS, tls("/certs")));

    let of_far = context(META, true);
    let by_context =
        find(&nothing(), &[home, ("DOCKER_CONTEXT", "far"), verify], &borrowed(&of_far)).expect("an address");
    let kept = of_far[1].0.strip_suffix("/ca.pem").expect("a file");
    assert_eq!(by_context.tls, tls(kept), "a context brings its own");
    assert_eq!(by_context.named_by, r#"the context "far""#);
}

#[test]
fn what_cannot_be_used_is_told_with_its_file_and_the_way_out() {
    let error = |variables: &[(&str, &str)], files: &[(&str, &str)]| {
        let mut all = vec![("HOME", "/home/ada")];
        all.extend(variables);
        find(&nothing(), &all, files).expect_err("no address").to_string()
    };
    let missing = error(&[("DOCKER_CONTEXT", "far")], &[]);
    assert!(missing.contains("DOCKER_CONTEXT") && missing.contains("far") && missing.contains("docker context ls"));
    let current = ("/home/ada/.docker/config.json", r#"{"currentContext": "far"}"#);
    assert!(error(&[], &[current]).contains("/home/ada/.docker/config.json"));
    let broken = error(&[], &[("/home/ada/.docker/config.json", "{")]);
    assert!(broken.contains("/home/ada/.docker/config.json"), "{broken}");
    let unchecked = META.replace("false", "true");
    let unchecked = context(&unchecked, true);
    let unchecked = error(&[("DOCKER_CONTEXT", "far")], &borrowed(&unchecked));
    assert!(unchecked.contains("trusts whoever answers") && unchecked.contains("docker context update"), "{unchecked}");
    let empty = context(r#"{"Endpoints": {"kubernetes": {"Host": "https://far"}}}"#, false);
    assert!(error(&[("DOCKER_CONTEXT", "far")], &borrowed(&empty)).contains("no Docker engine"));
    let all = error(&[("DOCKER_HOST", "tcp://there:1"), ("DOCKER_TLS", "1")], &[]);
    assert!(all.contains("DOCKER_TLS_VERIFY=1"), "{all}");
}

#[test]
fn an_address_is_a_socket_or_a_host_with_a_port() {
    let of = |host: &str| Place::of(host, None, true);
    let tcp = |authority: &str| Ok(Place::Tcp { authority: authority.into(), tls: None });
    assert_eq!(of("unix:///var/run/docker.sock"), Ok(Place::Socket("/var/run/docker.sock".into())));
    assert_eq!(of("tcp://there:1"), tcp("there:1"));
    assert_eq!(of("http://there:1/"), tcp("there:1"));
    assert_eq!(of("tcp://there"), tcp("there:2375"));
    assert_eq!(of("tcp://[::1]"), tcp("[::1]:2375"));
    assert_eq!(of("tcp://[fd00::1]:1"), tcp("[fd00::1]:1"));
    let with_tls = Place::of("tcp://there", Some(Path::new("/certs")), false);
    assert_eq!(with_tls, Ok(Place::Tcp { authority: "there:2376".into(), tls: tls("/certs") }));
    for none in [
        "",
        "there",
        "/var/run/docker.sock",
        "unix://",
        "unix://x",
        "tcp://",
        "tcp://:1",
        "tcp://a:b",
        "tcp://a@b:1",
        "tcp://::1:1",
        "npipe:////./pipe/docker_engine",
        "fd://",
    ] {
        let error = of(none).expect_err(none).to_string();
        assert!(error.contains("unix:///") && error.contains("tcp://"), "{none}: {error}");
    }
}

#[test]
fn another_machine_without_tls_is_refused_unless_it_is_said_in_words() {
    for own in ["tcp://127.0.0.1:1", "tcp://127.1.2.3:1", "tcp://localhost:1", "tcp://[::1]:1"] {
        assert!(Place::of(own, None, false).is_ok(), "{own}");
    }
    for other in
        ["tcp://10.0.0.1:1", "tcp://there:1", "tcp://[fd00::1]:1", "tcp://0.0.0.0:1", "tcp://localhost.example.org:1"]
    {
        let error = Place::of(other, None, false).expect_err(other).to_string();
        assert!(error.contains("docker.without_tls") && error.contains("ca.pem"), "{error}");
        assert!(Place::of(other, None, true).is_ok() && Place::of(other, Some(Path::new("/certs")), false).is_ok());
    }
}

#[test]
fn ssh_is_refused_by_its_name_with_the_way_out() {
    let error = Place::of("ssh://ada@there", None, false).expect_err("not spoken").to_string();
    assert!(
        error.contains("ssh is not spoken") && error.contains("ada@there") && error.contains("unix:///"),
        "{error}"
    );
}
