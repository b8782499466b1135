//! Holds: what a message is sent from.

use bytes::Bytes;

/// The bytes of a message: borrowed ones are copied once, owned ones only where copying is cheaper
/// than keeping them.
///
/// Made from slices, strings, vectors and [`Bytes`].
#[derive(Clone, Debug)]
pub struct Payload<'a>(Kind<'a>);

#[derive(Clone, Debug)]
enum Kind<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

impl Payload<'_> {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Kind::Borrowed(bytes) => bytes,
            Kind::Owned(bytes) => bytes,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// The bytes to keep; later calls share them.
    pub(crate) fn keep(&mut self) -> Bytes {
        if let Kind::Borrowed(bytes) = self.0 {
            self.0 = Kind::Owned(Bytes::copy_from_slice(bytes));
        }
        match &self.0 {
            Kind::Owned(bytes) => bytes.clone(),
            Kind::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        }
    }
}

macro_rules! borrowed {
    ($($from:ty),*) => {$(
        impl<'a> From<&'a $from> for Payload<'a> {
            fn from(bytes: &'a $from) -> Self {
                Self(Kind::Borrowed(bytes.as_ref()))
            }
        }
    )*};
}

macro_rules! owned {
    ($($from:ty),*) => {$(
        impl From<$from> for Payload<'_> {
            fn from(bytes: $from) -> Self {
                Self(Kind::Owned(bytes.into()))
            }
        }
    )*};
}

borrowed!([u8], str, Vec<u8>, String);
owned!(Bytes, Vec<u8>, String);

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Kind::Borrowed(bytes))
    }
}

impl<'a> From<&'a Bytes> for Payload<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        Self(Kind::Owned(bytes.clone()))
    }
}
