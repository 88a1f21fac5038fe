//! Processes that do not belong to an installation.

use crate::Installation;
use crate::home::Ran;

pub(crate) fn without_the_right_key(installation: &Installation) {
    let key = installation.home.path().join("other.key");
    let start = |role: &str| {
        let mut command = installation.command(role, role);
        Ran::of(command.env("RAWORC_MASTER_KEY_FILE", &key).output().expect("raworc runs"))
    };
    // On an empty database too, a half makes no key: each would have another.
    for role in ["server", "operator"] {
        let refused = start(role);
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.err.contains("other.key is missing") && refused.err.contains("head -c 32"), "{refused:#?}");
        assert!(!key.exists());
    }
    assert_eq!(installation.server("server").end(), Some(0));
    std::fs::write(&key, "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU=").expect("written");
    for role in ["server", "operator"] {
        let refused = start(role);
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.err.contains("sealed under master key"), "{refused:#?}");
    }
}

pub(crate) fn of_another(installation: &Installation) {
    let operator = installation.operator("data");
    assert_eq!(operator.end(), Some(0));
    std::fs::write(installation.home.path().join("data/installation"), "another\n").expect("written");
    let refused = Ran::of(installation.command("operator", "data").output().expect("raworc runs"));
    assert_eq!(refused.code, 1, "{refused:#?}");
    assert!(
        refused.err.contains("of another installation than the database") && refused.err.contains("--data"),
        "{refused:#?}"
    );
}
