//! Where the prepared clients are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Programs that `scripts/setup-clients.sh` has prepared.
#[derive(Clone, Debug)]
pub struct Tools(BTreeMap<String, PathBuf>);

impl Tools {
    /// Asks the set-up script what is where.
    ///
    /// # Errors
    ///
    /// The script's own line, which says what to run, if anything is missing.
    pub fn find() -> Result<Self> {
        let script = workspace().join("scripts/setup-clients.sh");
        let output = Command::new(&script)
            .arg("--paths")
            .output()
            .with_context(|| format!("cannot run {}", script.display()))?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let listed = String::from_utf8(output.stdout).context("paths are not UTF-8")?;
        let tools = listed.lines().filter_map(|line| line.split_once('='));
        Ok(Self(
            tools
                .map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
                .collect(),
        ))
    }

    /// The path of one program: `python`, `node`, `nats`, `nats_server`, `go`, `memphis_rust` or
    /// `chromium`; `postgres` is the folder of its programs.
    ///
    /// # Errors
    ///
    /// If the set-up script does not know the name.
    pub fn path(&self, name: &str) -> Result<&Path> {
        self.0
            .get(name)
            .map(PathBuf::as_path)
            .with_context(|| format!("scripts/setup-clients.sh --paths does not list {name}"))
    }
}

/// The folder of the workspace.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("compat-tests lies in the workspace")
}

/// The folder with the client scripts.
pub(crate) fn clients() -> PathBuf {
    workspace().join("compat-tests/clients")
}
