//! Users that a TLS certificate stands for (`verify_and_map`).

use super::{Attempt, Rules, User, Verdict};
use crate::tls::{CertificateName, Dn};

impl Rules {
    /// Decides about a connection whose certificate says who it is. Nothing that CONNECT brings
    /// counts then, but for keys that sign.
    pub(super) fn check_certificate(
        &self,
        names: &[CertificateName],
        attempt: &Attempt,
    ) -> Verdict {
        let mut users = names.iter().filter_map(|name| self.user_called(name));
        match users.find(|user| user.allows(attempt.connection)) {
            Some(user) if user.needs_proxy(attempt) => Verdict::NeedsProxy,
            Some(user) => Verdict::Accepted(user.login.clone()),
            None => Verdict::Refused,
        }
    }

    fn user_called(&self, name: &CertificateName) -> Option<&User> {
        match name {
            CertificateName::Text(text) => self.users.get(text.as_str()),
            CertificateName::Dn(dn) => {
                let named = || {
                    let users = self.users.iter();
                    users.filter_map(|(name, user)| Some((name.parse::<Dn>().ok()?, user)))
                };
                let find = |is_it: &dyn Fn(&Dn) -> bool| {
                    named().find_map(|(written, user)| is_it(&written).then_some(user))
                };
                find(&|written| written == dn).or_else(|| find(&|written| written.has_parts_of(dn)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use menes_auth::admission::ConnectionType;

    use super::*;
    use crate::config::options::{AuthOptions, UserOptions};

    fn rules(names: &[&str]) -> Rules {
        let users = names.iter().map(|name| UserOptions {
            user: (*name).to_owned(),
            ..UserOptions::default()
        });
        Rules::new(&AuthOptions {
            users: users.collect(),
            ..AuthOptions::default()
        })
    }

    fn found(rules: &Rules, names: Vec<CertificateName>) -> Option<String> {
        let attempt = Attempt {
            connect: Arc::default(),
            nonce: "".into(),
            address: Ipv4Addr::LOCALHOST.into(),
            cid: 1,
            connection: ConnectionType::Standard,
            certificate: None,
            is_proxied: false,
        };
        match rules.check_certificate(&names, &attempt) {
            Verdict::Accepted(login) => login.user.as_deref().map(str::to_owned),
            _ => None,
        }
    }

    fn text(text: &str) -> CertificateName {
        CertificateName::Text(text.to_owned())
    }

    fn dn(text: &str) -> CertificateName {
        CertificateName::Dn(text.parse().expect("a name"))
    }

    #[test]
    fn the_first_name_that_is_a_user_counts() {
        let rules = rules(&["a@x", "CN=b, O=c"]);
        assert_eq!(
            found(&rules, vec![text("q"), text("a@x"), dn("CN=b,O=c")]).as_deref(),
            Some("a@x")
        );
        assert_eq!(found(&rules, vec![text("A@x")]), None);
        assert_eq!(
            found(&rules, vec![dn("O=c,CN=b")]).as_deref(),
            Some("CN=b, O=c")
        );
        assert_eq!(found(&rules, vec![dn("CN=b,O=c,C=d")]), None);
        assert_eq!(found(&rules, vec![]), None);
    }

    #[test]
    fn a_name_in_order_wins_over_one_out_of_order() {
        let rules = rules(&["O=c,CN=b", "CN=b,O=c"]);
        assert_eq!(
            found(&rules, vec![dn("CN=b,O=c")]).as_deref(),
            Some("CN=b,O=c")
        );
        assert_eq!(
            found(&rules, vec![dn("O=c,CN=b")]).as_deref(),
            Some("O=c,CN=b")
        );
    }
}
