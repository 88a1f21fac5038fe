//! The boot line: the one thing that the program reads on its standard input.

use raworc_core::runtime::Boot;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Bytes that the line may have.
const LINE_LIMIT: u64 = 256 << 10;

/// Why the program was not told who it is.
#[derive(Debug, thiserror::Error)]
pub enum NoBoot {
    /// Nothing came.
    #[error("no boot line came on standard input; this program is started by a raworc operator")]
    Missing,
    /// Standard input failed.
    #[error("standard input cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// Something else came.
    #[error("the line on standard input is no boot line; this program is started by a raworc operator")]
    Garbled(#[source] serde_json::Error),
}

/// Reads the boot line. Nothing after it is looked at.
pub(crate) async fn read(input: impl AsyncRead + Unpin) -> Result<Boot, NoBoot> {
    let mut line = String::new();
    BufReader::new(input.take(LINE_LIMIT)).read_line(&mut line).await.map_err(NoBoot::Unreadable)?;
    if line.trim().is_empty() {
        return Err(NoBoot::Missing);
    }
    Boot::from_line(&line).map_err(NoBoot::Garbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_a_boot_line_the_program_says_who_starts_it() {
        for (input, says) in [("", "no boot line"), ("\n", "no boot line"), ("hello\n", "is no boot line")] {
            let error = read(input.as_bytes()).await.expect_err(input);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
