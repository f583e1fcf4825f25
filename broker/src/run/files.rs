//! Files that tell others about this process.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::announce::Addresses;

/// Writes the process id. The file stays when the server ends.
pub(super) fn write_pid(path: &Path) -> io::Result<()> {
    fs::write(path, std::process::id().to_string())
}

/// A file that lists where the server listens. Removed when dropped.
#[derive(Debug)]
pub(super) struct PortsFile {
    path: PathBuf,
}

/// Its content; what is off is left out.
#[derive(Serialize)]
struct Ports {
    nats: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    monitoring: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    websocket: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    memphis: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rest: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    management: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    metrics: Vec<String>,
}

impl PortsFile {
    /// Writes `<name of the executable>_<pid>.ports` into `folder`. The file appears complete.
    pub(super) fn write(folder: &Path, addresses: &Addresses) -> io::Result<Self> {
        let schemes = addresses.schemes;
        let ports = Ports {
            nats: addresses
                .nats
                .iter()
                .map(|at| url(schemes.nats, *at))
                .collect(),
            monitoring: addresses
                .monitoring
                .iter()
                .map(|at| url(schemes.monitoring, *at))
                .collect(),
            websocket: addresses
                .websocket
                .iter()
                .map(|at| url(schemes.websocket, *at))
                .collect(),
            memphis: addresses
                .memphis
                .iter()
                .map(|at| url(schemes.nats, *at))
                .collect(),
            rest: addresses
                .rest
                .iter()
                .map(|at| url(schemes.rest, *at))
                .collect(),
            management: addresses
                .management
                .iter()
                .map(|at| url(schemes.management, *at))
                .collect(),
            metrics: addresses
                .metrics
                .iter()
                .map(|at| url(schemes.metrics, *at))
                .collect(),
        };
        let name = format!("{}_{}", executable(), std::process::id());
        let path = folder.join(format!("{name}.ports"));
        let unfinished = folder.join(format!("{name}.tmp"));
        fs::write(&unfinished, serde_json::to_vec(&ports)?)?;
        fs::rename(&unfinished, &path)?;
        Ok(Self { path })
    }
}

impl Drop for PortsFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("The ports file {} stays: {error}", self.path.display());
        }
    }
}

pub(super) use super::announce::url;

/// The name this process was called by.
fn executable() -> String {
    let called = std::env::args_os().next().map(PathBuf::from);
    let name = called.as_deref().and_then(Path::file_name);
    name.map_or_else(
        || "menes".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::super::announce::Schemes;
    use super::*;

    #[test]
    fn the_ports_file_lists_reachable_urls_and_goes_with_its_owner() {
        let folder = tempfile::tempdir().expect("a folder");
        let addresses = Addresses {
            nats: vec![([0, 0, 0, 0], 4222).into()],
            memphis: Some(([127, 0, 0, 1], 6666).into()),
            websocket: None,
            monitoring: Some(([10, 1, 2, 3], 8222).into()),
            rest: None,
            management: None,
            metrics: None,
            schemes: Schemes {
                nats: "nats",
                websocket: "ws",
                monitoring: "http",
                rest: "http",
                management: "http",
                metrics: "http",
            },
        };
        let file = PortsFile::write(folder.path(), &addresses).expect("written");
        let name = file
            .path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            name.ends_with(&format!("_{}.ports", std::process::id())),
            "{name}"
        );
        assert_eq!(
            fs::read_to_string(&file.path).expect("there"),
            "{\"nats\":[\"nats://127.0.0.1:4222\"],\"monitoring\":[\"http://10.1.2.3:8222\"],\
             \"memphis\":[\"nats://127.0.0.1:6666\"]}"
        );
        drop(file);
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 0);
    }
}
