//! What may follow in an address, and what comes of a server that is not the one it asks for.

use raworc_core::store::StoreError;
use rustls::{AlertDescription as Alert, CertificateError, Error as TlsError};

use crate::sql::fault::Fault;

/// Looks at what follows after the `?` of an address. The driver passes over what it does not know, so that with a slip of the
/// pen nothing would be encrypted and nobody be told; and it does not name a file that it cannot read.
///
/// # Errors
/// [`StoreError::Unusable`] names the parameter or the file.
pub(crate) fn check(url: &str, known: &[&str], files: &[&str]) -> Result<(), StoreError> {
    let unusable = |reason| Err(StoreError::Unusable { reason });
    let Some((_, parameters)) = url.split_once('?') else { return Ok(()) };
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let word = name.split('[').next().unwrap_or_default();
        if !known.contains(&word) {
            // With a `?` in its password it is a part of that, unless it looks like a name.
            let is_name = word.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
            return unusable(format!(
                "the address of the database has {}, which means nothing there; known are {}",
                if is_name { format!("the parameter {word}") } else { "something after a `?`".to_owned() },
                known.join(", ")
            ));
        }
        // One that is written with % the driver alone can read.
        if files.contains(&word)
            && !value.contains('%')
            && let Err(error) = std::fs::File::open(value)
        {
            return unusable(format!(
                "{value} cannot be read, which the address of the database has as {name} ({error})"
            ));
        }
    }
    Ok(())
}

/// What an error comes to that the server itself did not send. `authority` is the parameter that names a file of
/// authorities, and `own` the one that names a certificate of one's own.
pub(crate) fn fault(error: &sqlx::Error, place: &str, authority: &str, own: &str) -> Fault {
    match error {
        sqlx::Error::Tls(_) => Fault::unusable(format!(
            "there is no TLS to the database {place} as its address asks for it ({error}); set it up in the server, or mend \
             the address"
        )),
        sqlx::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(TlsError::InvalidCertificate(reason)) => {
                let way_out = way_out(reason, authority);
                Fault::unusable(format!("the certificate of the database {place} is refused ({error}); {way_out}"))
            }
            Some(TlsError::AlertReceived(alert)) if is_about_own(*alert) => Fault::unusable(format!(
                "the database {place} refuses the certificate that is shown to it, or that none is ({error}); name the files of \
                 one that it takes: {own}=FILE, and that of its key"
            )),
            _ => Fault::of_driver(error, place),
        },
        _ => Fault::of_driver(error, place),
    }
}

/// Whether a server says this of whoever has connected.
const fn is_about_own(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            // An authority of the same name has signed it with another key.
            | Alert::DecryptError
            | Alert::CertificateRequired
    )
}

fn way_out(reason: &CertificateError, authority: &str) -> String {
    match reason {
        // An authority of the same name with another key has signed nothing of it.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            format!("name the file of the authority that signed it: {authority}=FILE")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "name the host as the certificate does, or have one made for this name".to_owned()
        }
        _ => "have another one made".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_means_nothing_and_a_file_that_is_missing_are_told() {
        let check = |url: &str| check(url, &["ssl-mode", "ssl-ca", "options"], &["ssl-ca"]);
        check("mysql://a:b@c/d").expect("has none");
        check("mysql://a:b@c/d?ssl-mode=VERIFY_CA&ssl-ca=/dev/null&options[a]=b").expect("knows them");
        let told = |url| check(url).expect_err("is refused").to_string();
        let slip = told("mysql://a:secret@c/d?ssl-mod=VERIFY_CA");
        let password = told("mysql://a:sec?ret@c/d");
        assert!(!password.contains("ret@"), "{password}");
        assert!(slip.contains("ssl-mod,") && slip.contains("ssl-mode") && !slip.contains("secret"), "{slip}");
        let missing = told("mysql://a:secret@c/d?ssl-ca=/nowhere/ca.pem");
        assert!(missing.contains("/nowhere/ca.pem") && missing.contains("ssl-ca"), "{missing}");
    }
}
