//! `async-nats` connections to a test server.

use std::time::Duration;

use async_nats::{Client, ConnectError, ConnectOptions};

use crate::TestServer;

/// Options with the server's user and password and a quick reconnect, for tests that restart it.
#[must_use]
pub fn options(server: &TestServer) -> ConnectOptions {
    let login = server.login();
    ConnectOptions::with_user_and_password(login.user.clone(), login.password.clone())
        .reconnect_delay_callback(|_| Duration::from_millis(20))
        .request_timeout(Some(Duration::from_secs(5)))
}

/// Connects as the server's user.
///
/// # Errors
///
/// If the server refuses.
pub async fn connect(server: &TestServer) -> Result<Client, ConnectError> {
    options(server).connect(server.url()).await
}
