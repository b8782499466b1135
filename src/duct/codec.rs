//! Decides: how an object becomes the payload of a message, and back.

use std::error::Error;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Nesting that a MessagePack payload may have; JSON's is bounded by its parser (128).
const DEPTH: usize = 128;

/// Why a codec did not take an object or a payload.
pub type CodecError = Box<dyn Error + Send + Sync>;

/// Turns objects of type `T` into payloads and back: [`Json`], [`MsgPack`], [`Raw`], or one's own.
///
/// ```
/// use natpipe::duct::{Codec, CodecError};
///
/// /// A number as decimal digits.
/// struct Digits;
///
/// impl Codec<u32> for Digits {
///     fn encode(&self, object: &u32, payload: &mut Vec<u8>) -> Result<(), CodecError> {
///         payload.extend_from_slice(object.to_string().as_bytes());
///         Ok(())
///     }
///
///     fn decode(&self, payload: &[u8]) -> Result<u32, CodecError> {
///         Ok(std::str::from_utf8(payload)?.parse()?)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (parent, child) = natpipe::duct::blocking::pair_with::<u32, _>(Default::default(), Digits)?;
/// parent.send(&7)?;
/// assert_eq!(child.recv()?, 7);
/// # Ok(())
/// # }
/// ```
pub trait Codec<T> {
    /// Appends the payload of `object`; what stands in `payload` already stays as it is.
    ///
    /// # Errors
    /// When the object has no such form. What was appended by then is dropped.
    fn encode(&self, object: &T, payload: &mut Vec<u8>) -> Result<(), CodecError>;

    /// The object of a payload, which comes from outside.
    ///
    /// # Errors
    /// When it is not the payload of a `T`. The message is gone then, and the duct goes on.
    fn decode(&self, payload: &[u8]) -> Result<T, CodecError>;

    /// As [`decode`](Self::decode), of a payload that may be kept: a large one comes in a buffer of its own.
    ///
    /// # Errors
    /// As [`decode`](Self::decode).
    fn decode_bytes(&self, payload: Bytes) -> Result<T, CodecError> {
        self.decode(&payload)
    }

    /// The payload, where the object is it already: a large one is then written from where it is.
    fn as_payload<'a>(&self, _object: &'a T) -> Option<&'a [u8]> {
        None
    }
}

/// UTF-8 JSON (RFC 8259), what ductworks speaks unless told otherwise. The default.
///
/// Python writes `NaN` and `Infinity`, which are not JSON and are refused; ours are written as `null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, object: &T, payload: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(serde_json::to_writer(payload, object)?)
    }

    fn decode(&self, payload: &[u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(payload)?)
    }
}

/// MessagePack, structs as maps with the names of their fields. Nesting is bounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsgPack;

impl<T: Serialize + DeserializeOwned> Codec<T> for MsgPack {
    fn encode(&self, object: &T, payload: &mut Vec<u8>) -> Result<(), CodecError> {
        Ok(rmp_serde::encode::write_named(payload, object)?)
    }

    fn decode(&self, payload: &[u8]) -> Result<T, CodecError> {
        let mut rest = payload;
        let mut decoder = rmp_serde::Deserializer::new(&mut rest);
        decoder.set_max_depth(DEPTH);
        let object = T::deserialize(&mut decoder)?;
        if rest.is_empty() { Ok(object) } else { Err(format!("{} bytes too many", rest.len()).into()) }
    }
}

/// The payload itself: `Vec<u8>` or [`Bytes`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Raw;

impl Codec<Vec<u8>> for Raw {
    fn encode(&self, object: &Vec<u8>, payload: &mut Vec<u8>) -> Result<(), CodecError> {
        payload.extend_from_slice(object);
        Ok(())
    }

    fn decode(&self, payload: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(payload.to_vec())
    }

    fn as_payload<'a>(&self, object: &'a Vec<u8>) -> Option<&'a [u8]> {
        Some(object)
    }
}

impl Codec<Bytes> for Raw {
    fn encode(&self, object: &Bytes, payload: &mut Vec<u8>) -> Result<(), CodecError> {
        payload.extend_from_slice(object);
        Ok(())
    }

    fn decode(&self, payload: &[u8]) -> Result<Bytes, CodecError> {
        Ok(Bytes::copy_from_slice(payload))
    }

    fn decode_bytes(&self, payload: Bytes) -> Result<Bytes, CodecError> {
        Ok(payload)
    }

    fn as_payload<'a>(&self, object: &'a Bytes) -> Option<&'a [u8]> {
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    struct Job {
        name: String,
        parts: Vec<Option<i64>>,
    }

    fn job() -> Job {
        Job { name: "ő".into(), parts: vec![Some(-1), None] }
    }

    #[track_caller]
    fn there_and_back<T: std::fmt::Debug + PartialEq>(codec: &impl Codec<T>, object: T) -> Vec<u8> {
        let mut payload = vec![1, 2];
        codec.encode(&object, &mut payload).unwrap();
        assert_eq!(payload[..2], [1, 2]);
        let payload = payload.split_off(2);
        assert_eq!(codec.decode(&payload).unwrap(), object);
        assert_eq!(codec.decode_bytes(payload.clone().into()).unwrap(), object);
        payload
    }

    #[test]
    fn objects_come_back_from_every_codec() {
        assert_eq!(there_and_back(&Json, job()), r#"{"name":"ő","parts":[-1,null]}"#.as_bytes());
        assert_eq!(there_and_back(&MsgPack, job()), b"\x82\xa4name\xa2\xc5\x91\xa5parts\x92\xff\xc0");
        assert_eq!(there_and_back(&Raw, vec![0u8, 255]), [0, 255]);
        assert_eq!(there_and_back(&Raw, Bytes::from_static(b"x")), b"x");
    }

    #[test]
    fn what_is_no_object_of_the_type_is_refused() {
        for bad in ["", "{", "NaN", r#"{"name":1,"parts":[]}"#, r#"{"name":"x","parts":[]} {}"#, "\"\u{0}\""] {
            assert!(Codec::<Job>::decode(&Json, bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Codec::<String>::decode(&Json, b"\"\xff\"").is_err(), "not UTF-8");
        assert!(Codec::<u8>::decode(&MsgPack, b"\x01\x01").is_err(), "a byte too many");
        assert!(Codec::<Vec<u8>>::decode(&MsgPack, b"\xdd\xff\xff\xff\xff").is_err(), "an array that does not come");
        assert!(Codec::<String>::decode(&MsgPack, b"\xdb\xff\xff\xff\xff").is_err(), "a string that does not come");
    }

    #[test]
    fn deep_nesting_is_refused_and_overflows_no_stack() {
        let json = "[".repeat(1 << 20);
        assert!(Codec::<serde_json::Value>::decode(&Json, json.as_bytes()).is_err());
        let pack = vec![0x91; 1 << 20];
        assert!(Codec::<serde_json::Value>::decode(&MsgPack, &pack).is_err());
    }
}
