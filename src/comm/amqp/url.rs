//! Decides: a configuration from a URL.

use lapin::uri::{AMQPScheme, AMQPUri};

use crate::comm::{Config, ConfigError};

impl Config {
    /// A configuration from `amqp://USER:PASSWORD@HOST[:PORT]/VHOST[?heartbeat=S]`, the same with `amqps`, or
    /// `pipe://HOST:PORT`. A virtual host called `/` is written `%2f`.
    ///
    /// # Errors
    /// [`ConfigError`] when it is no such URL. The password does not show in it.
    pub fn from_url(url: &str) -> Result<Self, ConfigError> {
        if let Some(place) = url.strip_prefix("pipe://") {
            return pipe(place);
        }
        let uri: AMQPUri =
            url.parse().map_err(|why| ConfigError::Syntax(format!("it is no URL of a broker: {why}")))?;
        let query = &uri.query;
        let strange = [
            ("frame_max", query.frame_max.is_some()),
            ("channel_max", query.channel_max.is_some()),
            ("auth_mechanism", query.auth_mechanism.is_some()),
        ];
        if let Some((key, _)) = strange.into_iter().find(|(_, given)| *given) {
            return Err(ConfigError::Unknown {
                key: key.to_owned(),
                known: "heartbeat, connection_timeout".to_owned(),
            });
        }
        let mut conf = Self::new("amqp")
            .host(uri.authority.host)
            .port(uri.authority.port)
            .user(uri.authority.userinfo.username)
            .password(uri.authority.userinfo.password)
            .vhost(uri.vhost)
            .tls(uri.scheme == AMQPScheme::AMQPS);
        if let Some(seconds) = uri.query.heartbeat {
            conf = conf.heartbeat(seconds);
        }
        if let Some(millis) = uri.query.connection_timeout.filter(|millis| *millis > 0) {
            conf = conf.connect_timeout(std::time::Duration::from_millis(millis));
        }
        Ok(conf)
    }
}

fn pipe(place: &str) -> Result<Config, ConfigError> {
    let wrong = || ConfigError::Syntax("pipe://HOST:PORT is wanted".to_owned());
    let (host, port) = place.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port: u16 = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
    if host.is_empty() { Err(wrong()) } else { Ok(Config::new("pipe").host(host).port(port)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_brokers_and_pipes() {
        let conf = Config::from_url("amqps://me:s%40crt@example.com/%2f?heartbeat=5").unwrap();
        assert_eq!(
            (conf.host.as_deref(), conf.port, conf.vhost.as_deref()),
            (Some("example.com"), Some(5671), Some("/"))
        );
        assert_eq!((conf.user.as_deref(), conf.password.as_deref()), (Some("me"), Some("s@crt")));
        assert!(conf.tls && conf.heartbeat == 5);
        let conf = Config::from_url("pipe://[::1]:7").unwrap();
        assert_eq!((conf.protocol(), conf.host.as_deref(), conf.port), ("pipe", Some("::1"), Some(7)));
    }

    #[test]
    fn what_is_no_such_url_is_refused_without_showing_the_password() {
        for url in [
            "",
            "http://h/",
            "amqp://u:secret@h:99999/v",
            "pipe://h",
            "pipe://:1",
            "pipe://h:0",
            "amqp://u:secret@h/v?frame_max=1",
        ] {
            let error = Config::from_url(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
