//! Holds: a message as MessagePack, and what can become one.

use bytes::Bytes;
use rmpv::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::PackError;

/// A message in MessagePack; a clone shares its bytes. As a router's argument or answer it is passed on as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Packed(Bytes);

impl Packed {
    /// Packs a value: structs as maps, so that other languages see the fields' names.
    ///
    /// # Errors
    /// [`PackError::Value`] when its `Serialize` fails.
    pub fn of(value: &(impl Serialize + ?Sized)) -> Result<Self, PackError> {
        Ok(Self(rmp_serde::to_vec_named(value)?.into()))
    }

    /// Takes bytes that are one MessagePack value.
    ///
    /// # Errors
    /// [`PackError::Bytes`] when they are not.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Result<Self, PackError> {
        let bytes = bytes.into();
        match crate::frame::msgpack::end(&bytes) {
            Ok(Some(end)) if end == bytes.len() => Ok(Self(bytes)),
            _ => Err(PackError::Bytes),
        }
    }

    /// Bytes whose end was found already.
    pub(super) fn checked(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// The value as a type.
    ///
    /// # Errors
    /// [`PackError::Type`] when it is of another type.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, PackError> {
        Ok(rmp_serde::from_slice(&self.0)?)
    }

    /// The value, whatever it is.
    ///
    /// # Errors
    /// [`PackError::Type`] when a string in it is no UTF-8.
    pub fn value(&self) -> Result<Value, PackError> {
        self.get()
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.value() {
            Ok(value) => write!(f, "Packed({value})"),
            Err(_) => write!(f, "Packed({} bytes)", self.0.len()),
        }
    }
}

/// What can be sent: everything that serializes, and what is packed already.
pub trait Pack {
    /// As MessagePack.
    ///
    /// # Errors
    /// [`PackError::Value`].
    fn pack(self) -> Result<Packed, PackError>;
}

impl<T: Serialize> Pack for T {
    fn pack(self) -> Result<Packed, PackError> {
        Packed::of(&self)
    }
}

impl Pack for Packed {
    fn pack(self) -> Result<Packed, PackError> {
        Ok(self)
    }
}

/// What a router can take: everything that deserializes, and the packed message itself.
pub trait Unpack: Sized {
    /// Out of MessagePack.
    ///
    /// # Errors
    /// [`PackError::Type`].
    fn unpack(packed: Packed) -> Result<Self, PackError>;
}

impl<T: DeserializeOwned> Unpack for T {
    fn unpack(packed: Packed) -> Result<Self, PackError> {
        packed.get()
    }
}

impl Unpack for Packed {
    fn unpack(packed: Packed) -> Result<Self, PackError> {
        Ok(packed)
    }
}
