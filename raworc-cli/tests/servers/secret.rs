//! What nobody is shown.

use crate::Installation;
use crate::home::Ran;

pub(crate) fn comes_from_a_file(installation: &Installation) {
    let (user, rest) = installation.store.rsplit_once('@').expect("a user");
    let (user, password) = user.rsplit_once(':').expect("a password");
    let without = Installation::with(&format!("{user}@{rest}"));
    let file = without.home.path().join("db.password");
    let server = |password: &str| {
        std::fs::write(&file, password).expect("written");
        let mut command = without.command("server", "server");
        command.env("RAWORC_STORE_PASSWORD_FILE", &file);
        command
    };
    let refused = Ran::of(server("not-it-at-all\n").output().expect("raworc runs"));
    assert!(refused.code == 1 && refused.err.contains("refuses the user or the password"), "{refused:#?}");
    assert!(!refused.err.contains("not-it-at-all"), "{refused:#?}");
    let up = crate::up::Up::of(server(&format!("{password}\n")));
    // Neither what it was started with nor what it says has it.
    let seen = |what: &str| std::fs::read_to_string(format!("/proc/{}/{what}", up.id())).expect("it runs");
    for what in ["cmdline", "environ"] {
        assert!(!seen(what).contains(password), "{what}");
    }
    assert!(!up.started.to_string().contains(password), "{}", up.started);
    assert_eq!(up.end(), Some(0));
    std::fs::remove_file(&file).expect("there");
    let missing =
        Ran::of(without.command("server", "server").env("RAWORC_STORE_PASSWORD_FILE", &file).output().expect("runs"));
    assert!(missing.code == 1 && missing.err.contains("db.password"), "{missing:#?}");
}
