//! Decides: bodies in the formats that a message can have.

use bytes::Bytes;

use super::yaml::{self, Tags};
use super::{BodyError, Value};

/// How bodies are written. What comes in is read by the content type that it carries, or else by this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// YAML, as the programs of seed 003 write it (`application/x-yaml`).
    #[default]
    Yaml,
    /// JSON (`application/json`). It has no bytes and no keys but text.
    Json,
    /// MessagePack (`application/msgpack`).
    MessagePack,
    /// The bytes as they are (`application/octet-stream`): [`Value::Bytes`] or [`Value::Str`].
    Raw,
}

impl Format {
    /// The content type, as RabbitMQ's property and HTTP's header of that name say it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Yaml => "application/x-yaml",
            Self::Json => "application/json",
            Self::MessagePack => "application/msgpack",
            Self::Raw => "application/octet-stream",
        }
    }

    /// The format that a content type names; `None` for one that is not known.
    pub fn from_content_type(name: &str) -> Option<Self> {
        match name.split(';').next().unwrap_or_default().trim() {
            "application/x-yaml" | "application/yaml" | "text/yaml" | "text/x-yaml" => Some(Self::Yaml),
            "application/json" | "text/json" => Some(Self::Json),
            "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => Some(Self::MessagePack),
            "application/octet-stream" => Some(Self::Raw),
            _ => None,
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "yaml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "msgpack" => Some(Self::MessagePack),
            "raw" => Some(Self::Raw),
            _ => None,
        }
    }

    /// The bytes of a value.
    ///
    /// # Errors
    /// [`BodyError::Unfit`] when the format cannot say it.
    pub fn encode(self, value: &Value) -> Result<Bytes, BodyError> {
        match self {
            Self::Yaml => Ok(yaml::write(value).into()),
            Self::Json => serde_json::to_vec(value).map(Bytes::from).map_err(BodyError::unfit),
            Self::MessagePack => rmp_serde::to_vec_named(value).map(Bytes::from).map_err(BodyError::unfit),
            Self::Raw => match value {
                Value::Bytes(bytes) => Ok(Bytes::copy_from_slice(bytes)),
                Value::Str(text) => Ok(Bytes::copy_from_slice(text.as_bytes())),
                Value::Null => Ok(Bytes::new()),
                _ => Err(BodyError::unfit("a raw body is bytes or text")),
            },
        }
    }

    /// The value of a body. Memory stays in proportion to the body, whatever it says.
    ///
    /// # Errors
    /// [`BodyError`]: not of the format, nested too deep, a bomb, or with a tag that would build an object.
    pub fn decode(self, body: &[u8]) -> Result<Value, BodyError> {
        self.decode_with(body, Tags::Refuse)
    }

    pub(super) fn decode_with(self, body: &[u8], tags: Tags) -> Result<Value, BodyError> {
        match self {
            Self::Yaml => yaml::read(utf8(body)?, tags),
            Self::Json => serde_json::from_slice(body)
                .map_err(|error| BodyError::Syntax { format: "JSON", why: error.to_string() }),
            Self::MessagePack => messagepack(body),
            Self::Raw => Ok(Value::Bytes(body.to_vec())),
        }
    }
}

fn utf8(body: &[u8]) -> Result<&str, BodyError> {
    std::str::from_utf8(body).map_err(|error| BodyError::Syntax { format: "YAML", why: error.to_string() })
}

/// One value and nothing after it. Depth is limited below what a small stack takes.
fn messagepack(body: &[u8]) -> Result<Value, BodyError> {
    const DEPTH: usize = 128;
    let wrong = |why: String| BodyError::Syntax { format: "MessagePack", why };
    let mut reader = rmp_serde::Deserializer::new(std::io::Cursor::new(body));
    reader.set_max_depth(DEPTH);
    let value = serde::Deserialize::deserialize(&mut reader).map_err(|error| wrong(error.to_string()))?;
    if reader.position() < body.len() as u64 {
        return Err(wrong(format!("{} bytes follow the value", body.len() as u64 - reader.position())));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Value {
        [("list", vec![1.into(), "two".into(), 3.5.into()].into()), ("deep", [("no", Value::Null)].into())].into()
    }

    #[test]
    fn every_format_says_the_same() {
        for format in [Format::Yaml, Format::Json, Format::MessagePack] {
            assert_eq!(format.decode(&format.encode(&sample()).unwrap()).unwrap(), sample());
            assert_eq!(Format::from_content_type(format.content_type()), Some(format));
        }
        let bytes = Value::Bytes(vec![0, 159, 255]);
        for format in [Format::Yaml, Format::MessagePack, Format::Raw] {
            assert_eq!(format.decode(&format.encode(&bytes).unwrap()).unwrap(), bytes);
        }
        assert!(Format::Raw.encode(&sample()).is_err());
    }

    #[test]
    fn hostile_bodies_are_errors() {
        let nested = [[0x91].repeat(100_000), vec![0xc0]].concat();
        for (format, body) in [
            (Format::Yaml, &b"\xff\xfe"[..]),
            (Format::Json, &b"[1"[..]),
            (Format::Json, "[".repeat(100_000).as_bytes()),
            (Format::MessagePack, &nested),
            // A list that announces four milliards of items and has none.
            (Format::MessagePack, b"\xdd\xff\xff\xff\xff"),
            (Format::MessagePack, b"\xc6\xff\xff\xff\xffabc"),
            (Format::MessagePack, b"\xc0\xc0"),
        ] {
            assert!(format.decode(body).is_err(), "{format:?}");
        }
    }
}
