//! Results of commands, on stdout.

use std::io::{self, Write as _};

/// One line.
pub(crate) fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    text_and_flush(&format!("{text}\n"))
}

/// Text that brings its own line ends.
pub(crate) fn text(text: &str) -> anyhow::Result<()> {
    text_and_flush(text)
}

fn text_and_flush(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever read it has seen enough (`| head`).
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}
