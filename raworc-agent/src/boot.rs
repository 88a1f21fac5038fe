//! The boot line: the one thing that the program reads on its standard input.

use std::time::Duration;

use raworc_core::runtime::Boot;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

/// Bytes that the line may have.
const LINE_LIMIT: u64 = 256 << 10;

/// How long the program waits for it: as long as an operator gives a start. An engine that is killed in the middle of one can
/// lose track of the program, which nobody else would end.
const LIMIT: Duration = Duration::from_secs(120);

/// Why the program was not told who it is.
#[derive(Debug, thiserror::Error)]
pub enum NoBoot {
    /// Nothing came.
    #[error("no boot line came on standard input; this program is started by a raworc operator")]
    Missing,
    /// Nothing came, and nobody ended the input either.
    #[error("no boot line came on standard input within {} s; whoever started this program is gone", LIMIT.as_secs())]
    Late,
    /// Standard input failed.
    #[error("standard input cannot be read")]
    Unreadable(#[source] std::io::Error),
    /// Something else came.
    #[error("the line on standard input is no boot line; this program is started by a raworc operator")]
    Garbled(#[source] serde_json::Error),
}

/// Waits for the boot line, as long as it may take.
pub(crate) async fn wait(input: impl AsyncRead + Unpin) -> Result<Boot, NoBoot> {
    tokio::time::timeout(LIMIT, read(input)).await.unwrap_or(Err(NoBoot::Late))
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

    #[tokio::test(start_paused = true)]
    async fn a_program_that_is_never_told_who_it_is_ends_itself() {
        let (_open, input) = tokio::io::duplex(1);
        assert!(matches!(wait(input).await, Err(NoBoot::Late)));
    }

    #[tokio::test]
    async fn without_a_boot_line_the_program_says_who_starts_it() {
        for (input, says) in [("", "no boot line"), ("\n", "no boot line"), ("hello\n", "is no boot line")] {
            let error = read(input.as_bytes()).await.expect_err(input);
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}
