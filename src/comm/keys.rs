//! Decides: a configuration read from YAML or TOML, key by key.

use std::num::NonZeroU16;
use std::time::Duration;

use super::yaml::{self, Tags};
use super::{Config, ConfigError, Format, Value};

/// The key under which the seed's configuration stands in a larger file.
const SECTION: &str = "mqconfig";

const KEYS: &[&str] = &[
    "auto_delete",
    "ca_file",
    "concurrency",
    "confirms",
    "connect_timeout",
    "dead_letter",
    "declare",
    "durable",
    "exchange",
    "format",
    "heartbeat",
    "host",
    "mandatory",
    "max_body",
    "max_tries",
    "password",
    "port",
    "prefetch",
    "protocol",
    "queue",
    "reconnect",
    "reconnect_max",
    "reconnect_wait",
    "routing_key",
    "timeout",
    "tls",
    "user",
    "vhost",
];

/// Seconds; longer than anyone waits, and short enough for any clock to add.
const LONGEST: f64 = 1e9;

impl Config {
    /// Reads a mapping of keys, or of `mqconfig` to such a mapping.
    ///
    /// # Errors
    /// [`ConfigError`] naming the key that is unknown or has a value that it cannot have.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let value = yaml::read(text, Tags::Refuse).map_err(|error| ConfigError::Syntax(error.to_string()))?;
        Self::from_value(&value)
    }

    /// Reads a table of keys, or a `[mqconfig]`.
    ///
    /// # Errors
    /// As [`from_yaml`](Self::from_yaml).
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let value: Value = toml::from_str(text).map_err(|error| ConfigError::Syntax(error.message().to_owned()))?;
        Self::from_value(&value)
    }

    /// Reads a mapping that comes from elsewhere.
    ///
    /// # Errors
    /// As [`from_yaml`](Self::from_yaml).
    pub fn from_value(value: &Value) -> Result<Self, ConfigError> {
        let section = value.get(SECTION).unwrap_or(value);
        let Value::Map(pairs) = section else {
            return Err(ConfigError::Syntax("it is no mapping of keys to values".to_owned()));
        };
        let mut conf = Self::default();
        for (key, value) in pairs {
            let name = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
            conf = conf.with(&name, value)?;
        }
        let misspelt = |(key, _): &(Value, Value)| key.as_str() == Some("exhange");
        if pairs.iter().any(misspelt) && section.get("exchange").is_some() {
            return Err(ConfigError::Both { a: "exhange", b: "exchange", why: "one is the other, misspelt" });
        }
        Ok(conf)
    }

    /// The configuration with one more key, as it stands in a file: `with("prefetch", &10.into())`.
    ///
    /// # Errors
    /// As [`from_yaml`](Self::from_yaml).
    pub fn with(self, key: &str, value: &Value) -> Result<Self, ConfigError> {
        let given = Given { key, value };
        Ok(match key {
            "auto_delete" => self.auto_delete(given.bool()?),
            "ca_file" => self.ca_file(given.text()?),
            "concurrency" => self.concurrency(given.count()?),
            "confirms" => self.confirms(given.bool()?),
            "connect_timeout" => self.connect_timeout(given.duration()?),
            "dead_letter" => self.dead_letter(given.name()?),
            "declare" => self.declare(given.bool()?),
            "durable" => self.durable(given.bool()?),
            "exchange" => self.exchange(given.name_or_empty()?),
            "exhange" => {
                tracing::warn!("the configuration's key `exhange` is read as `exchange`");
                self.exchange(given.name_or_empty()?)
            }
            "format" => self.format(given.format()?),
            "heartbeat" => self.heartbeat(given.number("whole seconds up to 65535")?),
            "host" => self.host(given.text()?),
            "mandatory" => self.mandatory(given.bool()?),
            "max_body" => self.max_body(given.number("a number of bytes")?),
            "max_tries" => self.max_tries(given.at_least_one()?),
            "password" => self.password(given.text()?),
            "port" => self.port(given.port()?),
            "prefetch" => self.prefetch(given.count()?),
            "protocol" => Self { protocol: given.text()?, ..self },
            "queue" => self.queue(given.name()?),
            "reconnect" => self.reconnect(given.bool()?),
            "reconnect_max" => self.reconnect_max(given.duration()?),
            "reconnect_wait" => self.reconnect_wait(given.duration()?),
            "routing_key" => self.routing_key(given.name()?),
            "timeout" => self.timeout(given.duration()?),
            "tls" => self.tls(given.bool()?),
            "user" => self.user(given.text()?),
            "vhost" => self.vhost(given.name()?),
            _ => return Err(ConfigError::Unknown { key: key.to_owned(), known: KEYS.join(", ") }),
        })
    }
}

/// A key and what was given for it.
struct Given<'a> {
    key: &'a str,
    value: &'a Value,
}

impl Given<'_> {
    fn wrong(&self, wanted: &'static str) -> ConfigError {
        let value = match self.key {
            "password" => "what was given".to_owned(),
            _ => self.value.to_string(),
        };
        ConfigError::Invalid { key: self.key.to_owned(), value, wanted }
    }

    fn bool(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    /// Text; a number is taken as it is written, as in `password: 1234`.
    fn text(&self) -> Result<String, ConfigError> {
        match self.value {
            Value::Str(text) if !text.is_empty() => Ok(text.clone()),
            Value::Int(number) => Ok(number.to_string()),
            _ => Err(self.wrong("text")),
        }
    }

    /// A name on the wire of AMQP: up to 255 bytes.
    fn name(&self) -> Result<String, ConfigError> {
        let text = self.text()?;
        if text.len() > 255 { Err(self.wrong("up to 255 bytes of text")) } else { Ok(text) }
    }

    fn name_or_empty(&self) -> Result<String, ConfigError> {
        match self.value {
            Value::Str(text) if text.is_empty() => Ok(String::new()),
            Value::Null => Ok(String::new()),
            _ => self.name(),
        }
    }

    fn number<T: TryFrom<i64>>(&self, wanted: &'static str) -> Result<T, ConfigError> {
        self.value.as_i64().and_then(|n| T::try_from(n).ok()).ok_or_else(|| self.wrong(wanted))
    }

    fn port(&self) -> Result<u16, ConfigError> {
        let wanted = "a port from 1 to 65535";
        self.number(wanted).ok().filter(|port| *port > 0).ok_or_else(|| self.wrong(wanted))
    }

    fn count(&self) -> Result<NonZeroU16, ConfigError> {
        let wanted = "a number from 1 to 65535";
        NonZeroU16::new(self.number(wanted)?).ok_or_else(|| self.wrong(wanted))
    }

    fn at_least_one(&self) -> Result<u32, ConfigError> {
        let wanted = "a number from 1";
        self.number(wanted).ok().filter(|n| *n > 0).ok_or_else(|| self.wrong(wanted))
    }

    fn duration(&self) -> Result<Duration, ConfigError> {
        let seconds = self.value.as_f64().filter(|s| *s > 0.0 && *s <= LONGEST);
        seconds.map(Duration::from_secs_f64).ok_or_else(|| self.wrong("seconds, more than 0"))
    }

    fn format(&self) -> Result<Format, ConfigError> {
        self.value.as_str().and_then(Format::from_name).ok_or_else(|| self.wrong("yaml, json, msgpack or raw"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: &str = "mqconfig:\n    protocol: amqp\n    host: 192.168.152.184\n    vhost: test\n    exhange: ''\n    routing_key: test\n    queue: test\n    user: test\n    password: test\n";

    #[test]
    fn the_seeds_configuration_is_read() {
        let conf = Config::from_yaml(SEED).unwrap();
        assert_eq!((conf.protocol(), conf.host.as_deref()), ("amqp", Some("192.168.152.184")));
        assert_eq!((conf.exchange.as_str(), conf.queue.as_deref()), ("", Some("test")));
        assert!(!conf.auto_delete);
        assert_eq!(conf.prefetch.get(), 1);
    }

    #[test]
    fn toml_says_the_same() {
        let text = "[mqconfig]\nprotocol = \"amqp\"\nhost = \"h\"\nport = 5679\ntimeout = 2.5\nprefetch = 20\ntls = true\nformat = \"msgpack\"";
        let conf = Config::from_toml(text).unwrap();
        assert_eq!((conf.port, conf.timeout, conf.prefetch.get()), (Some(5679), Duration::from_millis(2500), 20));
        assert!(conf.tls && conf.format == Format::MessagePack && conf.at_a_time() == 20);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |text: &str| Config::from_yaml(text).unwrap_err().to_string();
        assert!(error("hosst: x").contains("`hosst`"));
        assert!(error("port: 70000").contains("`port`"));
        assert!(error("prefetch: 0").contains("`prefetch`"));
        assert!(error("timeout: -1").contains("`timeout`"));
        assert!(error("tls: maybe").contains("`tls`"));
        assert!(error("max_tries: 0").contains("`max_tries`"));
        assert!(error("{exhange: a, exchange: b}").contains("`exhange`"));
        assert!(error("[1]").contains("no mapping"));
        assert!(error("a: b: c").contains("cannot be read"));
        let secret = error("password: [hunter2]");
        assert!(secret.contains("`password`") && !secret.contains("hunter2"));
    }

    #[test]
    fn every_key_is_taken_and_every_key_is_listed() {
        for key in KEYS {
            let taken = [true.into(), 7.into(), "yaml".into()].iter().any(|v| Config::default().with(key, v).is_ok());
            assert!(taken, "{key}");
        }
    }

    #[test]
    fn a_password_does_not_show() {
        let shown = format!("{:?}", Config::new("amqp").password("hunter2"));
        assert!(!shown.contains("hunter2"));
    }
}
