//! Holds: how results, progress and failures are written.

use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

/// Standard output takes no more. It is told apart from what else can fail so, a connection that broke above all: only a reader
/// that has gone away is no failure.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written")]
pub struct OutputError(#[from] pub io::Error);

/// One line that says why, for a person, and the exit status of a failure. A reader of our output
/// that has gone away is no failure.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    if reader_is_gone(error) {
        return ExitCode::SUCCESS;
    }
    remark(format_args!("natpipe: {}", sentence(error)));
    ExitCode::FAILURE
}

fn reader_is_gone(error: &anyhow::Error) -> bool {
    let of_output = error.chain().find_map(|cause| cause.downcast_ref::<OutputError>());
    of_output.is_some_and(|OutputError(cause)| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// The causes in one line, each said once.
fn sentence(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

/// One line of JSON on standard output.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// One line of text on standard output.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(io::stdout(), "{text}").map_err(OutputError)?)
}

/// Bytes on standard output, as they are.
///
/// # Errors
/// [`OutputError`].
pub fn bytes(bytes: &[u8]) -> Result<(), OutputError> {
    let mut out = io::stdout();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Says something to the person: a sentence, or with `--json` an event, on standard error.
pub fn say(json: bool, sentence: impl std::fmt::Display, event: &impl Serialize) {
    match serde_json::to_string(event) {
        Ok(line) if json => remark(line),
        _ => remark(sentence),
    }
}

/// A sentence for the person, on standard error. Nobody has to listen: `eprintln!` would panic where nobody does.
pub fn remark(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn only_a_reader_that_is_gone_is_forgiven_and_no_connection_that_broke() {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let output = Err::<(), _>(OutputError(gone())).context("while it was told").unwrap_err();
        assert!(reader_is_gone(&output));
        assert!(!reader_is_gone(&OutputError(io::ErrorKind::StorageFull.into()).into()));
        assert!(!reader_is_gone(&anyhow::Error::new(gone()).context("the peer")));
    }
}
