//! `tls` of a listener.

use std::path::PathBuf;
use std::time::Duration;

use super::super::grammar::{ConfigError, Node, Value};
use super::super::options::{CertificateFiles, HandshakeFirst, TlsOptions, TlsVersion};
use super::values::{boolean, duration, integer, key, list, map, text, wrong};
use crate::tls::{
    OFFERED_CURVES, Prepared, Standing, client_config, standing_of_curve, standing_of_suite, suites,
};

/// How long a client may take to begin where nothing else is said and `auto` was.
const FALLBACK: Duration = Duration::from_millis(50);
/// Hexadecimal digits of a SHA-256.
const DIGEST_DIGITS: usize = 64;

/// Reads a section and, so that a mistake is found before the start, the files it names.
pub(super) fn tls(node: &Node, warnings: &mut Vec<String>) -> Result<TlsOptions, ConfigError> {
    let options = read(node, warnings)?;
    Prepared::new(&options).map_err(|error| wrong(node, &error.to_string()))?;
    Ok(options)
}

/// As [`tls`], for connections to other servers.
pub(super) fn client_tls(
    node: &Node,
    warnings: &mut Vec<String>,
) -> Result<TlsOptions, ConfigError> {
    let options = read(node, warnings)?;
    client_config(&options).map_err(|error| wrong(node, &error.to_string()))?;
    if options.insecure {
        warnings.push(format!(
            "{}: TLS certificate chain and hostname of resolver will not be verified. DO NOT USE \
             IN PRODUCTION!",
            node.place
        ));
    }
    Ok(options)
}

fn read(node: &Node, warnings: &mut Vec<String>) -> Result<TlsOptions, ConfigError> {
    let mut options = TlsOptions::default();
    let mut reading = Reading::default();
    for field in &map(node)?.fields {
        let name = key(field);
        reading.field(&mut options, &name, &field.node, warnings)?;
        if reading.is_unknown && !field.referred {
            return Err(ConfigError {
                place: field.place.clone(),
                what: format!("error parsing tls config, unknown field {:?}", field.key),
            });
        }
    }
    reading.finish(&mut options, node)?;
    Ok(options)
}

/// What must be looked at together.
#[derive(Default)]
struct Reading {
    cert_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    allow_insecure: bool,
    insecure: Vec<String>,
    is_unknown: bool,
}

impl Reading {
    fn field(
        &mut self,
        options: &mut TlsOptions,
        name: &str,
        node: &Node,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        self.is_unknown = false;
        match name {
            "cert_file" => self.cert_file = Some(file(node, name)?),
            "key_file" => self.key_file = Some(file(node, name)?),
            "ca_file" => options.ca_file = Some(file(node, name)?),
            "certs" | "certificates" => options.certificates = pairs(node)?,
            "verify" => options.verify |= flag(node, name)?,
            "verify_and_map" => {
                options.map_users = flag(node, name)?;
                options.verify |= options.map_users;
            }
            "verify_cert_and_check_known_urls" => {
                if flag(node, name)? {
                    let what = "verify_cert_and_check_known_urls not supported in this context";
                    return Err(wrong(node, what));
                }
            }
            // It is about the certificates of servers that this one connects to.
            "insecure" => options.insecure = flag(node, name)?,
            "timeout" => {
                options.timeout = duration(node)
                    .map_err(|_| wrong(node, "error parsing tls config, 'timeout' wrong type"))?;
            }
            "handshake_first" | "first" | "immediate" => {
                options.handshake_first = handshake_first(node, name)?;
            }
            "pinned_certs" => options.pinned_certs = pinned(node)?,
            "min_version" => options.min_version = version(node)?,
            "connection_rate_limit" => {
                let wrong_type = |_| {
                    wrong(
                        node,
                        "error parsing tls config, 'connection_rate_limit' wrong type",
                    )
                };
                let limit = integer(node).map_err(wrong_type)?;
                options.connection_rate_limit = u32::try_from(limit).ok().filter(|n| *n > 0);
            }
            "allow_insecure_cipher_suites" => self.allow_insecure = flag(node, name)?,
            "cipher_suites" => options.cipher_suites = Some(self.ciphers(node, warnings)?),
            "curve_preferences" => options.curve_preferences = Some(curves(node, warnings)?),
            "cert_store"
            | "cert_match_by"
            | "cert_match"
            | "ca_certs_match"
            | "cert_match_skip_invalid" => {
                let what = "cert_store not compatible with current operating system";
                return Err(wrong(node, what));
            }
            "ocsp_peer" => {
                if !matches!(node.value, Value::Bool(false)) {
                    return Err(wrong(
                        node,
                        "\"ocsp_peer\" is not supported by this version",
                    ));
                }
            }
            _ => self.is_unknown = true,
        }
        Ok(())
    }

    fn ciphers(
        &mut self,
        node: &Node,
        warnings: &mut Vec<String>,
    ) -> Result<Vec<String>, ConfigError> {
        let items = some(node, "cipher_suites")?;
        let mut names = Vec::new();
        for item in items {
            let name = text(item)?;
            match standing_of_suite(&name) {
                None => {
                    let known: Vec<_> = suites().collect();
                    return Err(wrong(
                        item,
                        &format!("unrecognized cipher {name}; known are {}", known.join(", ")),
                    ));
                }
                Some(Standing::Insecure) => {
                    self.insecure.push(name.clone());
                    warnings.push(format!(
                        "{}: {name} is not offered, it is insecure",
                        item.place
                    ));
                }
                Some(Standing::Left) => {
                    warnings.push(format!(
                        "{}: {name} is not offered by this server",
                        item.place
                    ));
                }
                Some(Standing::Offered) => {}
            }
            names.push(name);
        }
        Ok(names)
    }

    fn finish(self, options: &mut TlsOptions, node: &Node) -> Result<(), ConfigError> {
        if !self.insecure.is_empty() && !self.allow_insecure {
            return Err(wrong(
                node,
                &format!(
                    "insecure cipher suites configured without 'allow_insecure_cipher_suites' option set: {}",
                    self.insecure.join(", ")
                ),
            ));
        }
        match (self.cert_file, self.key_file) {
            (Some(_), _) if !options.certificates.is_empty() => Err(wrong(
                node,
                "error parsing tls config, cannot combine 'cert_file' option with 'certs' option",
            )),
            (Some(cert_file), Some(key_file)) => {
                options.certificates.push(CertificateFiles {
                    cert_file,
                    key_file,
                });
                Ok(())
            }
            (Some(_), None) => Err(wrong(node, "missing 'key_file' in TLS configuration")),
            (None, Some(_)) => Err(wrong(node, "missing 'cert_file' in TLS configuration")),
            (None, None) => Ok(()),
        }
    }
}

fn file(node: &Node, name: &str) -> Result<PathBuf, ConfigError> {
    match &node.value {
        Value::String(path) => Ok(path.into()),
        _ => Err(wrong(
            node,
            &format!("error parsing tls config, expected '{name}' to be filename"),
        )),
    }
}

fn flag(node: &Node, name: &str) -> Result<bool, ConfigError> {
    boolean(node).map_err(|_| {
        wrong(
            node,
            &format!("error parsing tls config, expected '{name}' to be a boolean"),
        )
    })
}

/// A list with something in it.
fn some<'n>(node: &'n Node, name: &str) -> Result<&'n [Node], ConfigError> {
    let items = list(node)?;
    if items.is_empty() {
        return Err(wrong(
            node,
            &format!("error parsing tls config, '{name}' cannot be empty"),
        ));
    }
    Ok(items)
}

fn curves(node: &Node, warnings: &mut Vec<String>) -> Result<Vec<String>, ConfigError> {
    let mut names = Vec::new();
    for item in some(node, "curve_preferences")? {
        let name = text(item)?;
        match standing_of_curve(&name) {
            None => {
                let known = OFFERED_CURVES.join(", ");
                return Err(wrong(
                    item,
                    &format!("unrecognized curve preference {name}; known are {known}"),
                ));
            }
            Some(Standing::Offered) => {}
            Some(_) => {
                warnings.push(format!(
                    "{}: {name} is not offered by this server",
                    item.place
                ));
            }
        }
        names.push(name);
    }
    Ok(names)
}

fn pairs(node: &Node) -> Result<Vec<CertificateFiles>, ConfigError> {
    let mut all = Vec::new();
    for item in list(node)? {
        let mut pair = CertificateFiles::default();
        for field in &map(item)?.fields {
            match field.key.as_str() {
                "cert_file" => pair.cert_file = file(&field.node, "cert_file")?,
                "key_file" => pair.key_file = file(&field.node, "key_file")?,
                other => {
                    return Err(ConfigError {
                        place: field.place.clone(),
                        what: format!("error parsing tls certs config, unknown field {other:?}"),
                    });
                }
            }
        }
        if pair.cert_file.as_os_str().is_empty() || pair.key_file.as_os_str().is_empty() {
            return Err(wrong(
                item,
                "error parsing certificates config: both 'cert_file' and 'cert_key' options are required",
            ));
        }
        all.push(pair);
    }
    Ok(all)
}

fn pinned(node: &Node) -> Result<Vec<String>, ConfigError> {
    let items = list(node).map_err(|_| {
        wrong(
            node,
            "error parsing tls config, expected 'pinned_certs' to be a list of hex-encoded sha256 of DER encoded SubjectPublicKeyInfo",
        )
    })?;
    let mut keys = Vec::new();
    for item in items {
        let digest = text(item)?.to_ascii_lowercase();
        if digest.len() != DIGEST_DIGITS || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong(
                item,
                &format!(
                    "error parsing tls config, 'pinned_certs' key {digest} does not look like hex-encoded sha256 of DER encoded SubjectPublicKeyInfo"
                ),
            ));
        }
        keys.push(digest);
    }
    Ok(keys)
}

fn version(node: &Node) -> Result<TlsVersion, ConfigError> {
    let unsupported = |what: &str| {
        wrong(
            node,
            &format!("error parsing tls config: {what}, \"1.2\" and \"1.3\" are known"),
        )
    };
    match &node.value {
        Value::String(text) => match text.as_str() {
            "1.2" => Ok(TlsVersion::Tls12),
            "1.3" => Ok(TlsVersion::Tls13),
            "1.0" | "1.1" => Err(unsupported(&format!("unsupported TLS version: TLS {text}"))),
            other => Err(unsupported(&format!("unknown version: {other}"))),
        },
        other => Err(unsupported(&format!(
            "'min_version' wrong type: {}",
            other.kind()
        ))),
    }
}

fn handshake_first(node: &Node, name: &str) -> Result<HandshakeFirst, ConfigError> {
    match &node.value {
        Value::Bool(true) => Ok(HandshakeFirst::Always),
        Value::Bool(false) => Ok(HandshakeFirst::Never),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "on" => Ok(HandshakeFirst::Always),
            "false" | "off" => Ok(HandshakeFirst::Never),
            "auto" | "auto_fallback" => Ok(HandshakeFirst::Within(FALLBACK)),
            _ => duration(node)
                .map(HandshakeFirst::Within)
                .map_err(|_| wrong(node, &format!("field {name:?}'s value {word:?} is invalid"))),
        },
        other => Err(wrong(
            node,
            &format!(
                "field {name:?} should be a boolean or a string, got {}",
                other.kind()
            ),
        )),
    }
}
