//! Holds: how results, progress and failures are written.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;

/// One line that says why, for a person, and the exit status of a failure. A reader of our output
/// that has gone away is no failure.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    let gone = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(gone) {
        return ExitCode::SUCCESS;
    }
    eprintln!("natpipe: {}", sentence(error));
    ExitCode::FAILURE
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
    let line = serde_json::to_string(value)?;
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// One line of text on standard output.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Says something to the person: a sentence, or with `--json` an event, on standard error.
pub fn say(json: bool, sentence: impl std::fmt::Display, event: &impl Serialize) {
    if !json {
        eprintln!("{sentence}");
    } else if let Ok(line) = serde_json::to_string(event) {
        eprintln!("{line}");
    }
}
