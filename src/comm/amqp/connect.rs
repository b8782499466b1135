//! Waits: a connection to the broker, with its name for errors.

use std::sync::Arc;

use lapin::options::ConfirmSelectOptions;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::timeout;

use super::fault::{Doing, fault};
use crate::comm::{CommunicationError, Config, ConfigError};

/// A connection, closed with its last handle.
#[derive(Clone)]
pub(super) struct Broker {
    connection: Arc<Connection>,
    target: Arc<str>,
}

impl Broker {
    /// Connects within `connect_timeout`.
    pub(super) async fn connect(conf: &Config) -> Result<Self, CommunicationError> {
        let uri = uri(conf)?;
        let target: Arc<str> = format!("{}:{}", uri.authority.host, uri.authority.port).into();
        let tls = OwnedTLSConfig { identity: None, cert_chain: authorities(conf)? };
        let properties = ConnectionProperties::default().with_connection_name("natpipe".into());
        let runtime = lapin::runtime::default_runtime().map_err(|error| unreachable(&target, &error))?;
        let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
        let connection = match timeout(conf.connect_timeout, connecting).await {
            Ok(connection) => connection.map_err(|error| fault(&target, Doing::Connecting(conf), &error))?,
            Err(_) => {
                let why = format!("no answer within {:?}", conf.connect_timeout);
                return Err(CommunicationError::Connect { target: target.to_string(), why });
            }
        };
        Ok(Self { connection: Arc::new(connection), target })
    }

    /// A channel of one's own: an error on it harms no other.
    pub(super) async fn channel(&self) -> Result<Channel, CommunicationError> {
        self.connection.create_channel().await.map_err(|error| fault(&self.target, Doing::Opening, &error))
    }

    /// A channel on which each publishing is confirmed.
    pub(super) async fn confirming(&self) -> Result<Channel, CommunicationError> {
        let channel = self.channel().await?;
        let select = channel.confirm_select(ConfirmSelectOptions::default()).await;
        select.map_err(|error| fault(&self.target, Doing::Opening, &error))?;
        Ok(channel)
    }

    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Says goodbye and waits for the broker's.
    pub(super) async fn close(&self, conf: &Config) {
        if self.is_connected() {
            let closing = self.connection.close(200, "OK".into());
            match timeout(conf.connect_timeout, closing).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the connection broke while it was closed"),
                Err(_) => tracing::debug!("the broker did not answer the goodbye"),
            }
        }
    }
}

fn unreachable(target: &str, why: &impl ToString) -> CommunicationError {
    CommunicationError::Connect { target: target.to_owned(), why: why.to_string() }
}

fn uri(conf: &Config) -> Result<AMQPUri, ConfigError> {
    let host = conf.needed("host", conf.host.as_deref())?;
    let vhost = conf.needed("vhost", conf.vhost.as_deref())?;
    let username = conf.needed("user", conf.user.as_deref())?;
    let password = conf.needed("password", conf.password.as_deref())?;
    let (scheme, usual) = if conf.tls { (AMQPScheme::AMQPS, 5671) } else { (AMQPScheme::AMQP, 5672) };
    Ok(AMQPUri {
        scheme,
        authority: AMQPAuthority {
            userinfo: AMQPUserInfo { username: username.to_owned(), password: password.to_owned() },
            host: host.to_owned(),
            port: conf.port.unwrap_or(usual),
        },
        vhost: vhost.to_owned(),
        query: AMQPQueryString { heartbeat: Some(conf.heartbeat), ..AMQPQueryString::default() },
    })
}

/// Certificates to trust beside the system's.
fn authorities(conf: &Config) -> Result<Option<String>, ConfigError> {
    let Some(path) = &conf.ca_file else { return Ok(None) };
    let wrong = |why: std::io::Error| ConfigError::Invalid {
        key: "ca_file".to_owned(),
        value: format!("{} ({why})", path.display()),
        wanted: "a readable file of certificates (PEM)",
    };
    std::fs::read_to_string(path).map(Some).map_err(wrong)
}
