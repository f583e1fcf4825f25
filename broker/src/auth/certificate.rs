//! Users that a TLS certificate stands for (`verify_and_map`).

use std::sync::Arc;

use super::{Attempt, Rules, User, Verdict, check_password};
use crate::tls::{CertificateName, Dn};

impl Rules {
    /// Decides about a connection whose certificate says who it is. Of what CONNECT brings, keys
    /// that sign count, and the password, which has to be that of the user, or none if that has
    /// none.
    pub(super) fn check_certificate(
        &self,
        names: &[CertificateName],
        attempt: &Attempt,
    ) -> Verdict {
        let mut users = names.iter().filter_map(|name| self.user_called(name));
        match users.find(|user| user.allows(attempt.connection)) {
            Some(user) if user.needs_proxy(attempt) => Verdict::NeedsProxy,
            Some(User {
                secret: Some(secret),
                login,
                ..
            }) => {
                let given = attempt.connect.pass.as_deref().unwrap_or_default();
                check_password(Arc::clone(secret), given, Some(login.clone()))
            }
            Some(_) | None => Verdict::Refused,
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

    use menes_auth::admission::ConnectionType;
    use menes_protocol::connect::Connect;

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
        found_with(rules, names, Connect::default())
    }

    fn found_with(rules: &Rules, names: Vec<CertificateName>, connect: Connect) -> Option<String> {
        let attempt = Attempt {
            connect: Arc::new(connect),
            nonce: "".into(),
            address: Ipv4Addr::LOCALHOST.into(),
            cid: 1,
            who: String::new(),
            connection: ConnectionType::Standard,
            certificate: None,
            tls: None,
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

    #[test]
    fn a_password_that_is_given_or_wanted_has_to_be_right() {
        let user = |name: &str, password: &str| UserOptions {
            user: name.to_owned(),
            password: password.to_owned(),
            ..UserOptions::default()
        };
        let rules = Rules::new(&AuthOptions {
            users: vec![user("a@x", ""), user("b@x", "secret")],
            ..AuthOptions::default()
        });
        let with = |name: &str, password: Option<&str>| {
            let connect = Connect {
                user: Some("somebody".to_owned()),
                pass: password.map(str::to_owned),
                ..Connect::default()
            };
            found_with(&rules, vec![text(name)], connect).is_some()
        };
        assert!(with("a@x", None));
        assert!(!with("a@x", Some("secret")));
        assert!(with("b@x", Some("secret")));
        assert!(!with("b@x", Some("other")));
        assert!(!with("b@x", None));
    }
}
