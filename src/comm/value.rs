//! Holds: what a message says: a tree of plain data, the same in YAML, JSON and MessagePack.

use std::fmt;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::BodyError;

/// The content of a message. There is nothing else that a body can be decoded to: no tag and no type
/// name ever builds an object.
///
/// [`Value::of`] makes one from anything that serializes, [`Value::to`] turns one into anything that
/// deserializes.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Value {
    /// Nothing.
    #[default]
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number, from `i64::MIN` to `u64::MAX`.
    Int(i128),
    /// A floating-point number.
    Float(f64),
    /// Text.
    Str(String),
    /// Bytes (`!!binary` in YAML; JSON has none and writes them as a list of numbers).
    Bytes(Vec<u8>),
    /// A list.
    Seq(Vec<Value>),
    /// A mapping, in the order of the text.
    Map(Vec<(Value, Value)>),
    /// Data that carried a YAML tag that means nothing here; the tag is only text. It comes solely as
    /// the data of an error that Python raised: any other body with such a tag is refused.
    Tagged(String, Box<Value>),
}

impl Value {
    /// The value that `data` serializes to.
    ///
    /// # Errors
    /// [`BodyError::Unfit`] when it does not serialize, or is nested too deep.
    pub fn of(data: &impl Serialize) -> Result<Self, BodyError> {
        let bytes = rmp_serde::to_vec_named(data).map_err(BodyError::unfit)?;
        rmp_serde::from_slice(&bytes).map_err(BodyError::unfit)
    }

    /// The value as a type of one's own.
    ///
    /// # Errors
    /// [`BodyError::Unfit`] when it has another shape; the text says where.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, BodyError> {
        let bytes = rmp_serde::to_vec_named(self).map_err(BodyError::unfit)?;
        rmp_serde::from_slice(&bytes).map_err(BodyError::unfit)
    }

    /// The text, where it is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The number, where it is whole and fits.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Self::Int(number) => i64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// The number, where it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            // Rounding is what asking a whole number for a float means.
            Self::Int(number) => Some(*number as f64),
            _ => None,
        }
    }

    /// True or false, where it is either.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The value under a key of a mapping.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(pairs) => pairs.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// As YAML on one line, for people.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&super::yaml::spell(self))
    }
}

macro_rules! from {
    ($($type:ty, $from:ident => $value:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($from: $type) -> Self {
                $value
            }
        }
    )*};
}

from! {
    (), _nothing => Self::Null;
    bool, value => Self::Bool(value);
    i32, number => Self::Int(number.into());
    u32, number => Self::Int(number.into());
    i64, number => Self::Int(number.into());
    u64, number => Self::Int(number.into());
    f64, number => Self::Float(number);
    &str, text => Self::Str(text.to_owned());
    &String, text => Self::Str(text.clone());
    String, text => Self::Str(text);
    bytes::Bytes, bytes => Self::Bytes(bytes.into());
    Vec<Value>, list => Self::Seq(list);
}

impl<V: Into<Value>> From<Option<V>> for Value {
    fn from(value: Option<V>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

impl<const N: usize> From<[(&str, Value); N]> for Value {
    fn from(pairs: [(&str, Value); N]) -> Self {
        Self::Map(pairs.into_iter().map(|(key, value)| (key.into(), value)).collect())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(number) => serialize_int(*number, serializer),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Str(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::Seq(list) => {
                let mut seq = serializer.serialize_seq(Some(list.len()))?;
                for item in list {
                    seq.serialize_element(item)?;
                }
                seq.end()
            }
            Self::Map(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                for (key, value) in pairs {
                    map.serialize_entry(key, value)?;
                }
                map.end()
            }
            Self::Tagged(_, value) => value.serialize(serializer),
        }
    }
}

fn serialize_int<S: Serializer>(number: i128, serializer: S) -> Result<S::Ok, S::Error> {
    if let Ok(number) = i64::try_from(number) {
        serializer.serialize_i64(number)
    } else if let Ok(number) = u64::try_from(number) {
        serializer.serialize_u64(number)
    } else {
        Err(serde::ser::Error::custom(format_args!("{number} is not between i64::MIN and u64::MAX")))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("plain data")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Int(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Str(text))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Value, E> {
        Ok(Value::Bytes(bytes))
    }

    // The length that a body announces is not believed: the list grows with what is really there.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Value::Seq(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Value::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Job {
        name: String,
        sizes: Vec<u64>,
        note: Option<String>,
    }

    #[test]
    fn types_of_ones_own_become_values_and_come_back() {
        let job = Job { name: "build".into(), sizes: vec![0, u64::MAX], note: None };
        let value = Value::of(&job).unwrap();
        assert_eq!(value.get("name"), Some(&"build".into()));
        assert_eq!(value.to::<Job>().unwrap(), job);
        let error = Value::from("no job").to::<Job>().unwrap_err();
        assert!(matches!(error, BodyError::Unfit(_)), "{error}");
    }

    #[test]
    fn a_number_that_no_one_could_read_is_refused() {
        assert!(Value::Int(i128::MAX).to::<f64>().is_err());
    }
}
