//! `natpipe completions` and `natpipe man`.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Args;

pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "natpipe", &mut script);
    crate::output::line(String::from_utf8_lossy(&script).trim_end())
}

pub fn man(dir: Option<&Path>) -> Result<()> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Args::command()).render(&mut page)?;
        return crate::output::line(String::from_utf8_lossy(&page).trim_end());
    };
    clap_mangen::generate_to(Args::command(), dir).with_context(|| format!("cannot write into {}", dir.display()))
}
