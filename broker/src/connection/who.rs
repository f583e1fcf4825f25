//! What a connection is called in the log.
//!
//! ```text
//! 127.0.0.1:5 - cid:5 - "v1:go" - "$G/user:ada"
//! ```

use std::fmt;

use menes_protocol::error::Quoted;

use super::client::Client;

/// A client as nats-server calls it in its log: where it is, its number, its library and its user.
pub(crate) struct Who<'c>(pub(super) &'c Client);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = self.0;
        let kind = client.transport().number_name();
        write!(f, "{} - {kind}:{}", client.address(), client.id().0)?;
        let identity = client.identity();
        let version = match identity.version.as_str() {
            "" => String::new(),
            version => format!("v{version}"),
        };
        let library = [version.as_str(), &identity.lang, &identity.name];
        let library: Vec<&str> = library
            .into_iter()
            .filter(|part| !part.is_empty())
            .collect();
        if !library.is_empty() {
            write!(f, " - {}", Quoted(library.join(":").as_bytes()))?;
        }
        if let (Some(account), Some(user)) = (&identity.account, identity.user_label()) {
            let (name, title) = (account.name().as_str(), account.title());
            let title = Some(title).filter(|title| title != name);
            let title = title.map_or_else(String::new, |title| format!("/{title}"));
            let text = format!("{name}{title}/{user}");
            write!(f, " - {}", Quoted(text.as_bytes()))?;
        }
        Ok(())
    }
}
