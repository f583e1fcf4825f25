//! Operator mode: whom the server trusts, and where account tokens are found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use jiff::Timestamp;
use menes_auth::admission::Trust;
use menes_auth::key::KeyKind;
use menes_auth::{decorated, token};

use super::super::grammar::{ConfigError, Field, Node, Value};
use super::super::options::{DeleteAccounts, OperatorOptions, ResolverOptions, TlsOptions};
use super::super::settings::Settings;
use super::tls::client_tls;
use super::values::{boolean, duration, integer, key, map, text, texts, unknown, wrong};
use crate::server::NATS_VERSION;

/// Accounts in a cache, unless something else is said.
const CACHE_LIMIT: usize = 1000;

/// Whether `key`, in lower case, is one of this section.
pub(super) fn is_key(key: &str) -> bool {
    matches!(
        key,
        "operator"
            | "operators"
            | "roots"
            | "root"
            | "root_operators"
            | "root_operator"
            | "trusted"
            | "trusted_keys"
            | "resolver"
            | "account_resolver"
            | "accounts_resolver"
            | "resolver_preload"
            | "resolver_pinned_accounts"
            | "default_sentinel"
            | "resolver_tls"
    )
}

/// What was read of it. The keys stand at the top of the configuration, in any order.
#[derive(Debug, Default)]
pub(super) struct Section {
    tokens: Vec<String>,
    trust: Option<Trust>,
    resolver: Option<ResolverOptions>,
    resolver_tls: Option<TlsOptions>,
    preload: BTreeMap<String, String>,
    pinned: Option<BTreeSet<String>>,
    sentinel: Option<String>,
    /// The key that was read last, for contradictions.
    last: Option<Node>,
}

impl Section {
    /// Reads one key.
    pub(super) fn read(
        &mut self,
        field: &Field,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        let node = &field.node;
        match key(field).as_str() {
            "trusted" | "trusted_keys" => {
                let keys = texts(node)?;
                let trust = Trust::in_keys(keys.iter().map(String::as_str));
                self.trust = Some(trust.map_err(|error| wrong(node, &error.to_string()))?);
            }
            "resolver" | "account_resolver" | "accounts_resolver" => {
                self.resolver = Some(resolver(node)?);
            }
            "resolver_tls" => {
                self.resolver_tls = Some(client_tls(node, warnings)?);
                return Ok(());
            }
            "resolver_preload" => self.preload = preload(node)?,
            "resolver_pinned_accounts" => self.pinned = Some(pinned(node)?),
            "default_sentinel" => self.sentinel = Some(sentinel(node)?),
            _ => self.operators(node)?,
        }
        self.last = Some(node.clone());
        Ok(())
    }

    fn operators(&mut self, node: &Node) -> Result<(), ConfigError> {
        let failed = |what: String| wrong(node, &format!("error parsing operator JWT: {what}"));
        for name in texts(node)? {
            let content = match fs::read_to_string(&name) {
                Ok(content) => content,
                Err(_) if name.trim_start().starts_with(token::PREFIX) || name.contains('\n') => {
                    name
                }
                Err(error) => return Err(failed(format!("{name}: {error}"))),
            };
            let text = decorated::token(&content);
            token::decode_operator(text).map_err(|error| failed(error.to_string()))?;
            self.tokens.push(text.to_owned());
        }
        let tokens = self.tokens.iter().map(String::as_str);
        let now = Timestamp::now().as_second();
        let trust = Trust::in_operators(tokens, NATS_VERSION, now);
        self.trust = Some(trust.map_err(|error| wrong(node, &error.to_string()))?);
        Ok(())
    }

    /// Puts what was read into `settings`.
    pub(super) fn finish(self, settings: &mut Settings) -> Result<(), ConfigError> {
        let Some(place) = self.last else {
            return Ok(());
        };
        let Some(trust) = self.trust else {
            let what = if self.sentinel.is_some() {
                "default sentinel requires operators and accounts"
            } else {
                "an account resolver requires operators or trusted keys to be configured"
            };
            return Err(wrong(&place, what));
        };
        let from_operator = trust
            .operators()
            .first()
            .filter(|_| trust.operators().len() == 1)
            .map(|operator| operator.nats.account_server_url.as_str())
            .filter(|url| url.starts_with("http://") || url.starts_with("https://"))
            .map(|url| ResolverOptions::Url(format!("{url}/accounts")));
        let Some(resolver) = self.resolver.or(from_operator) else {
            let what = "operators require an account resolver to be configured";
            return Err(wrong(&place, what));
        };
        if let ResolverOptions::Url(url) = &resolver
            && !url.starts_with("http://")
            && !url.starts_with("https://")
        {
            let what = format!("{url:?}: accounts are fetched over http and https");
            return Err(wrong(&place, &what));
        }
        let configured = settings.server.system_account.clone();
        let mut named = trust.operators().iter().map(|op| &op.nats.system_account);
        if let Some(configured) = &configured
            && named.clone().any(|name| !name.is_empty())
            && !named.any(|name| name == configured)
        {
            let what = "system_account in config and operator JWT must be identical";
            return Err(wrong(&place, what));
        }
        let system_account = configured.or_else(|| trust.system_account().map(str::to_owned));
        settings.server.system_account.clone_from(&system_account);
        settings.server.operator = Some(OperatorOptions {
            trust,
            tokens: self.tokens,
            resolver,
            resolver_tls: self.resolver_tls,
            preload: self.preload,
            pinned_accounts: self.pinned,
            default_sentinel: self.sentinel,
            system_account,
        });
        Ok(())
    }
}

fn resolver(node: &Node) -> Result<ResolverOptions, ConfigError> {
    if let Value::Map(_) = node.value {
        return folder_resolver(node);
    }
    let given = text(node)?;
    let upper = given.trim().to_ascii_uppercase();
    if matches!(upper.as_str(), "MEM" | "MEMORY") {
        return Ok(ResolverOptions::Memory);
    }
    let url = if upper.starts_with("URL(") {
        let inner = given.trim().get(4..).unwrap_or_default();
        inner
            .trim_end_matches(')')
            .trim()
            .trim_matches('"')
            .to_owned()
    } else {
        given.trim().to_owned()
    };
    if url.contains("://") {
        return Ok(ResolverOptions::Url(url));
    }
    let what = "error parsing account resolver, should be MEM or  URL(\"url\") or a map \
                containing dir and type state=[FULL|CACHE])";
    Err(wrong(node, what))
}

fn folder_resolver(node: &Node) -> Result<ResolverOptions, ConfigError> {
    let mut kind = String::new();
    let mut folder = PathBuf::new();
    let (mut allow_delete, mut hard_delete) = (false, None);
    let (mut limit, mut ttl, mut has_interval) = (None, None, false);
    for field in &map(node)?.fields {
        let node = &field.node;
        match key(field).as_str() {
            "type" => kind = text(node)?.to_ascii_uppercase(),
            "dir" => folder = text(node)?.into(),
            "allow_delete" => allow_delete = boolean(node)?,
            "hard_delete" => hard_delete = Some(boolean(node)?),
            "limit" => {
                limit = usize::try_from(integer(node)?)
                    .ok()
                    .filter(|limit| *limit > 0)
            }
            "ttl" => ttl = Some(duration(node)?),
            // Other servers to compare with come with clusters.
            "interval" => {
                duration(node)?;
                has_interval = true;
            }
            "timeout" => drop(duration(node)?),
            _ => unknown(field)?,
        }
    }
    if matches!(kind.as_str(), "MEM" | "MEMORY") {
        return Ok(ResolverOptions::Memory);
    }
    if folder.as_os_str().is_empty() {
        let what = "dir has no value and needs to point to a directory";
        return Err(wrong(node, what));
    }
    if folder.exists() && !folder.is_dir() {
        let what = "dir needs to point to an accessible directory";
        return Err(wrong(node, what));
    }
    match kind.as_str() {
        "CACHE" => {
            for (is_given, name) in [
                (has_interval, "sync"),
                (allow_delete, "allow_delete"),
                (hard_delete.is_some(), "hard_delete"),
            ] {
                if is_given {
                    return Err(wrong(node, &format!("CACHE does not accept {name}")));
                }
            }
            Ok(ResolverOptions::Cache {
                folder,
                ttl: ttl.filter(|ttl| !ttl.is_zero()),
                limit: limit.unwrap_or(CACHE_LIMIT),
            })
        }
        "FULL" => {
            if ttl.is_some_and(|ttl| !ttl.is_zero()) {
                return Err(wrong(node, "FULL does not accept ttl"));
            }
            if hard_delete.is_some() && !allow_delete {
                return Err(wrong(node, "hard_delete has no effect without delete"));
            }
            let delete = match (allow_delete, hard_delete) {
                (false, _) => DeleteAccounts::Never,
                (true, Some(true)) => DeleteAccounts::Remove,
                (true, _) => DeleteAccounts::Rename,
            };
            Ok(ResolverOptions::Full {
                folder,
                delete,
                limit,
            })
        }
        _ => Err(wrong(node, "a resolver's type is full, cache or memory")),
    }
}

fn preload(node: &Node) -> Result<BTreeMap<String, String>, ConfigError> {
    let mut tokens = BTreeMap::new();
    for field in &map(node)?.fields {
        let text = text(&field.node)?;
        if token::decode_account(&text).is_err() {
            return Err(wrong(&field.node, "invalid account JWT"));
        }
        tokens.insert(field.key.clone(), text);
    }
    Ok(tokens)
}

fn pinned(node: &Node) -> Result<BTreeSet<String>, ConfigError> {
    let keys = texts(node)?;
    match keys.iter().find(|key| !KeyKind::Account.is_public_key(key)) {
        Some(key) => {
            let what = format!("pinned account key {key:?} is not a valid public account nkey");
            Err(wrong(node, &what))
        }
        None => Ok(keys.into_iter().collect()),
    }
}

fn sentinel(node: &Node) -> Result<String, ConfigError> {
    let text = text(node)?;
    let Ok(claims) = token::decode_user(&text) else {
        return Err(wrong(node, "default sentinel JWT not valid"));
    };
    let user = &claims.nats;
    // What a scope gives cannot be known yet; it is looked at when someone connects.
    let is_scoped = !user.issuer_account.is_empty() && user.limits == <_>::default();
    if !user.limits.bearer_token && !is_scoped {
        return Err(wrong(node, "default sentinel must be a bearer token"));
    }
    Ok(text)
}
