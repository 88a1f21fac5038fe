//! What a closed computer reaches, on the local runtime.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use crate::home::Home;
use crate::up::Up;

/// A page of this machine, on an address that programs do not take for their own computer's.
const PLACE: &str = "127.0.0.2";

/// Serves one page to whoever comes, until the test's process ends.
fn page() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind((PLACE, 0)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let serving = std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut read = [0; 4096];
            let _ = stream.read(&mut read);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\npage\n");
        }
    });
    (port, serving)
}

/// Asks for a page as a program does that is told of a proxy, with nothing but the shell.
const ASK: &str = r#"proxy=${http_proxy#http://}; exec 3<>/dev/tcp/${proxy%:*}/${proxy#*:}
printf 'GET http://%s/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n' "$1" >&3; cat <&3"#;

fn up(home: &Home, configuration: &str) -> Up {
    std::fs::write(home.path().join("raworc.toml"), configuration).expect("written");
    Up::start(home)
}

fn ask(home: &Home, target: &str) -> String {
    home.run(&["agent", "exec", "ada", "--", "bash", "-c", ASK, "ask", target]).ok()
}

#[test]
fn a_closed_computer_reaches_what_its_list_and_the_configuration_name_and_nothing_else() {
    let (home, (port, _serving)) = (Home::new(), page());
    let target = format!("{PLACE}:{port}");
    let up_without = up(&home, "");
    home.run(&["agent", "create", "ada", "--wait", "--egress", &target]).ok();
    let nothing = home.run(&["agent", "egress", "ada"]);
    assert!(nothing.code == 0 && nothing.err.contains("Nothing was reached or refused"), "{nothing:#?}");
    let straight = format!("exec 3<>/dev/tcp/{PLACE}/{port}");
    let straight = home.run(&["agent", "exec", "ada", "--", "bash", "-c", &straight]);
    assert!(straight.code != 0 && straight.err.contains("refused"), "without the proxy there is no way: {straight:#?}");
    let refused = ask(&home, &target);
    assert!(refused.contains("403 Not a public address") && refused.contains("egress.private"), "{refused}");
    let elsewhere = ask(&home, "elsewhere.example");
    assert!(elsewhere.contains("403 Not on the agent's egress list"), "{elsewhere}");

    // Of a message, the refusals are among its steps.
    let said = format!("!set -- elsewhere.example; {ASK}");
    home.run(&["send", "ada", &said]).ok();
    let history = home.run(&["history", "ada", "--steps"]).ok();
    assert!(history.contains("egress refused: elsewhere.example:80"), "{history}");
    assert_eq!(up_without.end(), Some(0));

    let listed = format!("[[egress.private]]\nhost = \"{PLACE}\"\nranges = [\"{PLACE}/32\"]\n");
    let _up_with = up(&home, &listed);
    let got = ask(&home, &target);
    assert!(got.starts_with("HTTP/1.1 200 OK") && got.ends_with("page\n"), "{got}");
    home.run(&["agent", "edit", "ada", "--egress", "other.example"]).ok();
    let shown = home.run(&["agent", "egress", "ada"]).ok();
    let line = shown.lines().find(|line| line.starts_with(&target)).unwrap_or_else(|| panic!("{shown}"));
    assert_eq!(line.split_whitespace().nth(1), Some("1"), "one connection: {shown}");
    let refused = ask(&home, &target);
    assert!(refused.contains("403 Not on the agent's egress list"), "at once, without a new start: {refused}");
}

/// What is listed for one agent would be everybody's on this machine.
#[test]
fn a_computer_without_walls_has_no_proxy_for_it_goes_out_as_this_machine_does() {
    let routes = std::fs::read_to_string("/proc/net/route").expect("Linux");
    assert!(routes.lines().count() > 1, "this machine has a network");
    let home = Home::new();
    let _up = Up::of(home.raworc(&["up", "--no-isolation", "--listen", "127.0.0.1:0", "-o", "json", "--log", "error"]));
    home.run(&["agent", "create", "ada", "--wait", "--egress", "elsewhere.example"]).ok();
    let told = home.run(&["agent", "exec", "ada", "--", "sh", "-c", "echo \"[$http_proxy]\""]).ok();
    assert_eq!(told, "[]\n");
}

#[test]
fn a_configuration_that_names_no_host_or_range_is_refused_by_its_key() {
    let home = Home::new();
    for (listed, told) in [
        ("host = \"https://a.example\"\nranges = [\"10.0.0.0/8\"]", "egress.private"),
        ("host = \"a.example\"\nranges = []", "egress.private"),
        ("host = \"a.example\"\nranges = [\"10.0.0.0/99\"]", "ranges"),
    ] {
        std::fs::write(home.path().join("raworc.toml"), format!("[[egress.private]]\n{listed}\n")).expect("written");
        let ran = home.run(&["up", "--listen", "127.0.0.1:0"]);
        assert!(ran.code == 2 && ran.err.contains(told), "{listed}: {ran:#?}");
    }
}
