//! How each type of field is laid out.

use super::{AttributeUpdate, Encoder, MergedSource, NULL, StorageChunk, TableEntry, TableKey};
use bytes::{Buf as _, Bytes};
use thalweg_types::id::WriterId;
use thalweg_types::name::SegmentName;
use thiserror::Error;

/// Segments in one list. Their names may be empty, so the frame's length does not bound what a list of them takes.
const NAMES_MAX: usize = 65_536;

/// What is wrong with a field.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Fault {
    /// The body ends within the field.
    #[error("{needed} bytes are needed where {left} are left")]
    Truncated {
        /// Bytes that the field needs from here on.
        needed: usize,
        /// Bytes left in the body.
        left: usize,
    },
    /// A length or count is negative.
    #[error("a length of {0}")]
    Negative(i32),
    /// A list holds more than any peer sends.
    #[error("{count} items where at most {limit} are taken")]
    TooMany {
        /// Items in the list.
        count: usize,
        /// Most that are taken.
        limit: usize,
    },
    /// A boolean is neither 0 nor 1.
    #[error("{0} for a boolean")]
    Boolean(u8),
    /// Text is not UTF-8.
    #[error("text that is not UTF-8")]
    Utf8,
    /// Two lengths that must agree do not.
    #[error("{inner} bytes in a block of {outer}")]
    Lengths {
        /// Length of the block.
        outer: i32,
        /// Length of what is in it.
        inner: i32,
    },
    /// A nested command is not an event.
    #[error("a nested command of type {0} where an event must be")]
    NoEvent(i32),
}

/// Data that may lie in several pieces; equal if their bytes are.
#[derive(Clone, Debug, Default, Eq)]
pub struct Payload(Vec<Bytes>);

impl Payload {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.iter().map(Bytes::len).sum()
    }

    /// True without a byte.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }

    /// Adds a piece behind the others.
    pub fn push(&mut self, piece: Bytes) {
        self.0.push(piece);
    }

    /// The pieces in order.
    pub fn pieces(&self) -> &[Bytes] {
        &self.0
    }

    /// Everything in one piece; copies if there are several.
    pub fn into_bytes(mut self) -> Bytes {
        if self.0.len() == 1 { self.0.swap_remove(0) } else { self.0.concat().into() }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() { Self::default() } else { Self(vec![bytes]) }
    }
}

impl From<Vec<Bytes>> for Payload {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self(pieces)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.0.iter().flatten().eq(other.0.iter().flatten())
    }
}

/// What is left of a body.
pub(super) struct Body(Bytes);

impl Body {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn slice(&mut self, bytes: usize) -> Result<Bytes, Fault> {
        if bytes > self.0.len() {
            return Err(Fault::Truncated { needed: bytes, left: self.0.len() });
        }
        Ok(self.0.split_to(bytes))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let Some(array) = self.0.first_chunk::<N>().copied() else {
            return Err(Fault::Truncated { needed: N, left: self.0.len() });
        };
        self.0.advance(N);
        Ok(array)
    }

    fn text(&mut self) -> Result<Bytes, Fault> {
        let bytes = usize::from(u16::from_be_bytes(self.array()?));
        self.slice(bytes)
    }
}

/// A layout for fields of type `T`.
pub(super) trait Codec<T> {
    /// No field is shorter. If fewer bytes are left, an optional field is absent.
    const BYTES_MIN: usize;
    /// Length of this field.
    fn bytes(value: &T) -> usize;
    /// Writes the field.
    fn put(value: &T, out: &mut Encoder);
    /// Reads the field.
    fn take(body: &mut Body) -> Result<T, Fault>;
    /// Any value, for tests.
    #[cfg(test)]
    fn sample(source: &mut Source) -> T;
}

/// Where tests take their values from.
#[cfg(test)]
pub(super) struct Source(pub(super) Vec<u8>);

#[cfg(test)]
impl Source {
    pub(super) fn byte(&mut self) -> u8 {
        self.0.pop().unwrap_or_default()
    }

    fn bytes(&mut self) -> Bytes {
        // Now and then beyond what an encoder copies.
        let count = if self.byte() == 255 { 5000 } else { usize::from(self.byte()) % 20 };
        (0..count).map(|_| self.byte()).collect()
    }

    fn text(&mut self) -> String {
        self.bytes().iter().map(|byte| char::from(*byte)).collect()
    }
}

/// The usual layout of a type.
pub(super) struct Plain;
/// All bytes up to the body's end.
pub(super) struct Rest;
/// A nested frame of type 0, kept whole.
pub(super) struct WholeEvent;

macro_rules! integers {
    ($($ty:ty),*) => {$(
        impl Codec<$ty> for Plain {
            const BYTES_MIN: usize = size_of::<$ty>();
            fn bytes(_: &$ty) -> usize {
                size_of::<$ty>()
            }
            fn put(value: &$ty, out: &mut Encoder) {
                out.put(&value.to_be_bytes());
            }
            fn take(body: &mut Body) -> Result<$ty, Fault> {
                Ok(<$ty>::from_be_bytes(body.array()?))
            }
            #[cfg(test)]
            fn sample(source: &mut Source) -> $ty {
                <$ty>::from_be_bytes(std::array::from_fn(|_| source.byte()))
            }
        }
    )*};
}

integers!(i8, i32, i64, u128);

fn take<T>(body: &mut Body) -> Result<T, Fault>
where
    Plain: Codec<T>,
{
    Plain::take(body)
}

fn count_of(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes()
}

fn length(body: &mut Body) -> Result<usize, Fault> {
    let length: i32 = take(body)?;
    usize::try_from(length).map_err(|_| Fault::Negative(length))
}

impl Codec<bool> for Plain {
    const BYTES_MIN: usize = 1;
    fn bytes(_: &bool) -> usize {
        1
    }
    fn put(value: &bool, out: &mut Encoder) {
        out.put(&[u8::from(*value)]);
    }
    fn take(body: &mut Body) -> Result<bool, Fault> {
        match body.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(Fault::Boolean(other)),
        }
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> bool {
        source.byte() % 2 == 1
    }
}

impl Codec<WriterId> for Plain {
    const BYTES_MIN: usize = 16;
    fn bytes(_: &WriterId) -> usize {
        16
    }
    fn put(value: &WriterId, out: &mut Encoder) {
        Self::put(&value.0, out);
    }
    fn take(body: &mut Body) -> Result<WriterId, Fault> {
        take(body).map(WriterId)
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> WriterId {
        WriterId(Self::sample(source))
    }
}

/// The longest prefix of `text` that a length of 16 bits can announce.
fn bounded(text: &str) -> &str {
    &text[..text.floor_char_boundary(usize::from(u16::MAX))]
}

fn put_text(text: &str, out: &mut Encoder) {
    let text = bounded(text);
    let bytes = u16::try_from(text.len()).expect("bounded above");
    out.put(&bytes.to_be_bytes());
    out.put(text.as_bytes());
}

impl Codec<String> for Plain {
    const BYTES_MIN: usize = 2;
    fn bytes(value: &String) -> usize {
        2 + bounded(value).len()
    }
    fn put(value: &String, out: &mut Encoder) {
        put_text(value, out);
    }
    fn take(body: &mut Body) -> Result<String, Fault> {
        let text = body.text()?;
        std::str::from_utf8(&text).map(str::to_owned).map_err(|_| Fault::Utf8)
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> String {
        source.text()
    }
}

impl Codec<SegmentName> for Plain {
    const BYTES_MIN: usize = 2;
    fn bytes(value: &SegmentName) -> usize {
        2 + bounded(value.as_str()).len()
    }
    fn put(value: &SegmentName, out: &mut Encoder) {
        put_text(value.as_str(), out);
    }
    fn take(body: &mut Body) -> Result<SegmentName, Fault> {
        let text = body.text()?;
        std::str::from_utf8(&text).map(SegmentName::from).map_err(|_| Fault::Utf8)
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> SegmentName {
        source.text().into()
    }
}

impl Codec<Bytes> for Plain {
    const BYTES_MIN: usize = 4;
    fn bytes(value: &Bytes) -> usize {
        4 + value.len()
    }
    fn put(value: &Bytes, out: &mut Encoder) {
        out.put(&count_of(value.len()));
        out.put_data(value);
    }
    fn take(body: &mut Body) -> Result<Bytes, Fault> {
        let bytes = length(body)?;
        body.slice(bytes)
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> Bytes {
        source.bytes()
    }
}

impl Codec<Payload> for Plain {
    const BYTES_MIN: usize = 4;
    fn bytes(value: &Payload) -> usize {
        4 + value.len()
    }
    fn put(value: &Payload, out: &mut Encoder) {
        out.put(&count_of(value.len()));
        for piece in value.pieces() {
            out.put_data(piece);
        }
    }
    fn take(body: &mut Body) -> Result<Payload, Fault> {
        take::<Bytes>(body).map(Payload::from)
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> Payload {
        Payload(vec![source.bytes(), source.bytes()])
    }
}

impl Codec<Bytes> for Rest {
    const BYTES_MIN: usize = 0;
    fn bytes(value: &Bytes) -> usize {
        value.len()
    }
    fn put(value: &Bytes, out: &mut Encoder) {
        out.put_data(value);
    }
    fn take(body: &mut Body) -> Result<Bytes, Fault> {
        body.slice(body.len())
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> Bytes {
        source.bytes()
    }
}

impl Codec<Bytes> for WholeEvent {
    const BYTES_MIN: usize = 8;
    fn bytes(value: &Bytes) -> usize {
        value.len()
    }
    fn put(value: &Bytes, out: &mut Encoder) {
        out.put_data(value);
    }
    fn take(body: &mut Body) -> Result<Bytes, Fault> {
        let whole = body.0.clone();
        let code: i32 = take(body)?;
        if code != 0 {
            return Err(Fault::NoEvent(code));
        }
        let bytes = length(body)?;
        body.slice(bytes)?;
        Ok(whole.slice(..8 + bytes))
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> Bytes {
        let data = source.bytes();
        [&[0; 4], &count_of(data.len())[..], &data].concat().into()
    }
}

impl<T> Codec<Vec<T>> for Plain
where
    Self: Codec<T>,
{
    const BYTES_MIN: usize = 4;
    fn bytes(value: &Vec<T>) -> usize {
        4 + value.iter().map(<Self as Codec<T>>::bytes).sum::<usize>()
    }
    fn put(value: &Vec<T>, out: &mut Encoder) {
        out.put(&count_of(value.len()));
        for item in value {
            <Self as Codec<T>>::put(item, out);
        }
    }
    fn take(body: &mut Body) -> Result<Vec<T>, Fault> {
        let count = length(body)?;
        // Before anything is allocated: a count that the body cannot hold.
        let least = count.saturating_mul(<Self as Codec<T>>::BYTES_MIN);
        if least > body.len() {
            return Err(Fault::Truncated { needed: least, left: body.len() });
        }
        if <Self as Codec<T>>::BYTES_MIN <= 2 && count > NAMES_MAX {
            return Err(Fault::TooMany { count, limit: NAMES_MAX });
        }
        (0..count).map(|_| <Self as Codec<T>>::take(body)).collect()
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> Vec<T> {
        (0..source.byte() % 4).map(|_| <Self as Codec<T>>::sample(source)).collect()
    }
}

impl Codec<TableKey> for Plain {
    const BYTES_MIN: usize = 8;
    fn bytes(value: &TableKey) -> usize {
        if value.key.is_empty() { 8 } else { 16 + value.key.len() }
    }
    fn put(value: &TableKey, out: &mut Encoder) {
        out.put(&count_of(12 + value.key.len()));
        <Self as Codec<Bytes>>::put(&value.key, out);
        if !value.key.is_empty() {
            Self::put(&value.version, out);
        }
    }
    fn take(body: &mut Body) -> Result<TableKey, Fault> {
        let (outer, inner): (i32, i32) = (take(body)?, take(body)?);
        let bytes = usize::try_from(inner).map_err(|_| Fault::Negative(inner))?;
        if inner.checked_add(12) != Some(outer) {
            return Err(Fault::Lengths { outer, inner });
        }
        // Java leaves the version of an empty key out, although it counts it.
        if bytes == 0 {
            return Ok(TableKey { key: Bytes::new(), version: NULL });
        }
        Ok(TableKey { key: body.slice(bytes)?, version: take(body)? })
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> TableKey {
        let (key, version) = (source.bytes(), Self::sample(source));
        let version = if key.is_empty() { NULL } else { version };
        TableKey { key, version }
    }
}

impl Codec<TableEntry> for Plain {
    const BYTES_MIN: usize = 16;
    fn bytes(value: &TableEntry) -> usize {
        <Self as Codec<TableKey>>::bytes(&value.key) + 8 + value.value.len()
    }
    fn put(value: &TableEntry, out: &mut Encoder) {
        <Self as Codec<TableKey>>::put(&value.key, out);
        out.put(&count_of(4 + value.value.len()));
        <Self as Codec<Bytes>>::put(&value.value, out);
    }
    fn take(body: &mut Body) -> Result<TableEntry, Fault> {
        let key = take(body)?;
        let (outer, inner): (i32, i32) = (take(body)?, take(body)?);
        let bytes = usize::try_from(inner).map_err(|_| Fault::Negative(inner))?;
        if inner.checked_add(4) != Some(outer) {
            return Err(Fault::Lengths { outer, inner });
        }
        Ok(TableEntry { key, value: body.slice(bytes)? })
    }
    #[cfg(test)]
    fn sample(source: &mut Source) -> TableEntry {
        TableEntry { key: Self::sample(source), value: source.bytes() }
    }
}

macro_rules! records {
    ($($name:ident { $($field:ident: $ty:ty),* })*) => {$(
        impl Codec<$name> for Plain {
            const BYTES_MIN: usize = 0 $(+ <Self as Codec<$ty>>::BYTES_MIN)*;
            fn bytes(value: &$name) -> usize {
                0 $(+ <Self as Codec<$ty>>::bytes(&value.$field))*
            }
            fn put(value: &$name, out: &mut Encoder) {
                $(<Self as Codec<$ty>>::put(&value.$field, out);)*
            }
            fn take(body: &mut Body) -> Result<$name, Fault> {
                $(let $field: $ty = take(body)?;)*
                Ok($name { $($field),* })
            }
            #[cfg(test)]
            fn sample(source: &mut Source) -> $name {
                $(let $field = <Self as Codec<$ty>>::sample(source);)*
                $name { $($field),* }
            }
        }
    )*};
}

records! {
    AttributeUpdate { attribute_id: u128, kind: i8, new_value: i64, old_value: i64 }
    MergedSource { source: SegmentName, new_target_write_offset: i64 }
    StorageChunk {
        length_in_metadata: i64, length_in_storage: i64, start_offset: i64, chunk_name: String,
        exists_in_storage: bool
    }
}
