//! What a message may cost: depth, elements and memory, whatever the serde format.
//!
//! Formats trust their input. A few bytes can nest until the stack ends (which kills the process,
//! not the call), announce 2^60 elements that need no bytes at all, or unfold into a thousand
//! times their size. So a wrapper stands between the format and the type, on both ways:
//!
//! ```text
//!   T::deserialize ─► Limited<D> ─► D            asks for a shape
//!                       V ◄─ Guard<V> ◄─ D       and is given it, counted
//! ```
//!
//! **Depth**: a sequence, map, struct, tuple, enum or `Some` is one level. An enum's payload
//! belongs to its enum, and a newtype struct is transparent: neither can recurse by itself.
//!
//! **Items**: an element of a sequence, or an entry of a map. The fields of structs and tuples are
//! free, because the type and not the peer says how many there are.
//!
//! **Bytes**: memory is paid for where it is allocated. An element costs its own size, which
//! covers whatever lies inline in it, so a field costs nothing again; strings and bytes cost their
//! length. What a value holds in a box shows itself by being larger than the room it was given,
//! and pays the difference. The spare capacity of collections is not counted.
//!
//! A field costs a store, an element two subtractions more, a level one. The layers are always
//! inlined: left to itself, the compiler keeps some of them as calls, which costs more than the counting.
//! Floor 0: no clock, no I/O.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor};

/// The most a peer's word may make a collection reserve. Growing from here on costs a few copies;
/// reserving what an 18-byte message announces costs megabytes.
const MAX_SIZE_HINT: usize = 64;

const MIB: usize = 1 << 20;

/// Elements that even the shortest message may hold. Only those that need no bytes outnumber the bytes of their message,
/// and a loop over so many takes a fraction of a millisecond; over four millions it takes 20, for a message of nine bytes.
const FLOOR_ITEMS: usize = 64 * 1024;

/// How much one message may cost to decode.
///
/// ```
/// # use rpc_core::codec::{Codec, DecodeLimits};
/// let limits = DecodeLimits::default().max_items(2);
/// assert!(Codec::Postcard.decode::<Vec<u8>>(&[2, 7, 7], Some(&limits)).is_ok());
/// assert!(Codec::Postcard.decode::<Vec<u8>>(&[3, 7, 7, 7], Some(&limits)).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    depth: usize,
    items: usize,
    floor_bytes: usize,
    bytes_per_wire_byte: usize,
    ceiling_bytes: usize,
}

/// Which of the [`DecodeLimits`] a message passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// Levels of nesting.
    Depth,
    /// Elements of sequences and entries of maps, over the whole message.
    Items,
    /// Memory for elements, strings and bytes, over the whole message.
    Bytes,
}

/// A message would have cost more than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("decoding needs more than {max} {}", limit.unit())]
pub struct LimitExceeded {
    limit: Limit,
    max: usize,
}

impl DecodeLimits {
    /// How deep values may nest: 64 unless set.
    #[must_use]
    pub const fn max_depth(mut self, levels: usize) -> Self {
        self.depth = levels;
        self
    }

    /// How many elements and map entries a message may hold in all: 4 194 304 unless set, which is one for each byte of
    /// the longest default message, so that a plain `Vec<u8>` of that size passes. Above 65 536 it may hold no more than it
    /// has bytes: elements that need none are worth nobody's time.
    #[must_use]
    pub const fn max_items(mut self, items: usize) -> Self {
        self.items = items;
        self
    }

    /// The memory that no message passes, however long it is: 64 MiB unless set.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.ceiling_bytes = bytes;
        self
    }

    /// The memory that even the shortest message may use: 1 MiB unless set.
    #[must_use]
    pub const fn floor_bytes(mut self, bytes: usize) -> Self {
        self.floor_bytes = bytes;
        self
    }

    /// The memory a message may use for each of its own bytes, above the floor: 32 unless set.
    /// An empty `String` is one byte on the wire and 24 in memory, so less refuses lists of them.
    #[must_use]
    pub const fn bytes_per_wire_byte(mut self, bytes: usize) -> Self {
        self.bytes_per_wire_byte = bytes;
        self
    }

    /// The memory a message of `wire_bytes` may use.
    #[must_use]
    pub fn budget_bytes(&self, wire_bytes: usize) -> usize {
        wire_bytes.saturating_mul(self.bytes_per_wire_byte).max(self.floor_bytes).min(self.ceiling_bytes)
    }
}

impl DecodeLimits {
    /// The limits for messages of peers that are not trusted.
    pub const DEFAULT: &'static Self =
        &Self { depth: 64, items: 4 * MIB, floor_bytes: MIB, bytes_per_wire_byte: 32, ceiling_bytes: 64 * MIB };
}

impl Default for DecodeLimits {
    fn default() -> Self {
        *Self::DEFAULT
    }
}

impl Limit {
    const fn unit(self) -> &'static str {
        match self {
            Self::Depth => "levels of nesting (the depth limit)",
            Self::Items => "elements (the items limit)",
            Self::Bytes => "bytes of memory (the bytes limit)",
        }
    }
}

impl LimitExceeded {
    /// Which limit it was.
    #[must_use]
    pub const fn limit(&self) -> Limit {
        self.limit
    }

    /// The number that was not enough; for [`Limit::Bytes`] the budget of this very message.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }
}

/// Why decoding ended early.
pub(super) enum Stopped<E> {
    Limit(LimitExceeded),
    Inner(E),
}

/// Reads a `T` from `inner`, whose message is `wire_bytes` long.
#[inline]
pub(super) fn decode_within<'de, D, T>(inner: D, limits: &DecodeLimits, wire_bytes: usize) -> Result<T, Stopped<D::Error>>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let budget_bytes = limits.budget_bytes(wire_bytes);
    let budget_items = limits.items.min(wire_bytes.max(FLOOR_ITEMS));
    let mut budget = Budget {
        items: budget_items,
        bytes: budget_bytes,
        depth: limits.depth,
        // The value itself lies on the caller's stack.
        room: size_of::<T>(),
        limits,
        budget_bytes,
        budget_items,
        exceeded: None,
    };
    let result = T::deserialize(Limited { inner, budget: &mut budget });
    // Formats drop the text of errors that are not theirs, and a type may swallow an error
    // altogether; the budget remembers.
    match (budget.exceeded, result) {
        (Some(exceeded), _) => Err(Stopped::Limit(exceeded)),
        (None, result) => result.map_err(Stopped::Inner),
    }
}

/// What is left for the rest of the message.
struct Budget<'l> {
    items: usize,
    bytes: usize,
    /// How many levels the next value may still go down.
    depth: usize,
    /// The bytes of memory that are already paid for the next value.
    room: usize,
    limits: &'l DecodeLimits,
    budget_bytes: usize,
    budget_items: usize,
    exceeded: Option<LimitExceeded>,
}

impl Budget<'_> {
    #[inline(always)]
    fn charge_item<E: Error>(&mut self) -> Result<(), E> {
        match self.items.checked_sub(1) {
            Some(left) => self.items = left,
            None => return Err(self.exceed(Limit::Items)),
        }
        Ok(())
    }

    #[inline(always)]
    fn charge_bytes<E: Error>(&mut self, bytes: usize) -> Result<(), E> {
        match self.bytes.checked_sub(bytes) {
            Some(left) => self.bytes = left,
            None => return Err(self.exceed(Limit::Bytes)),
        }
        Ok(())
    }

    /// A `T` is about to be read. One that is larger than its room is in a box of its own.
    #[inline(always)]
    fn hold<T, E: Error>(&mut self) -> Result<(), E> {
        if size_of::<T>() > self.room {
            self.charge_bytes(size_of::<T>() - self.room)?;
        }
        self.room = size_of::<T>();
        Ok(())
    }

    /// One level down: holds a `T` and reads its parts with `read`.
    #[inline(always)]
    fn nest<T, E: Error>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        match self.depth.checked_sub(1) {
            Some(left) => self.depth = left,
            None => return Err(self.exceed(Limit::Depth)),
        }
        self.hold::<T, E>()?;
        let result = read(self);
        self.depth += 1;
        result
    }

    #[cold]
    fn exceed<E: Error>(&mut self, limit: Limit) -> E {
        let max = match limit {
            Limit::Depth => self.limits.depth,
            Limit::Items => self.budget_items,
            Limit::Bytes => self.budget_bytes,
        };
        // A type that carries on after an error does not get far.
        self.items = 0;
        self.bytes = 0;
        let exceeded = LimitExceeded { limit, max };
        E::custom(self.exceeded.get_or_insert(exceeded))
    }
}

/// What a sequence means for the budget.
#[derive(Clone, Copy)]
enum Shape {
    /// The peer says how many, and they are allocated.
    Elements,
    /// The type says how many, and they lie inside the value.
    Fields,
    /// The fields of an enum's variant, which has already counted as a level.
    Payload,
}

/// A deserializer whose values are counted. Two words, so that it travels in registers.
struct Limited<'a, 'l, D> {
    inner: D,
    budget: &'a mut Budget<'l>,
}

impl<'a, 'l, D> Limited<'a, 'l, D> {
    #[inline(always)]
    fn split<V>(self, visitor: V, shape: Shape) -> (D, Guard<'a, 'l, V>) {
        (self.inner, Guard { visitor, budget: self.budget, shape })
    }
}

/// Fixed in size and without parts, so there is nothing to count.
macro_rules! pass_to_inner {
    ($($method:ident)*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        }
    )*};
}

macro_rules! pass_guarded {
    ($($method:ident)*) => {$(
        #[inline(always)]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            let (inner, guard) = self.split(visitor, Shape::Elements);
            inner.$method(guard)
        }
    )*};
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Limited<'_, '_, D> {
    type Error = D::Error;

    pass_to_inner! {
        deserialize_bool
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_unit deserialize_identifier
    }

    pass_guarded! {
        deserialize_any deserialize_ignored_any deserialize_option deserialize_seq deserialize_map
        deserialize_str deserialize_string deserialize_bytes deserialize_byte_buf
    }

    #[inline(always)]
    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }

    #[inline(always)]
    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    #[inline(always)]
    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, guard) = self.split(visitor, Shape::Fields);
        inner.deserialize_newtype_struct(name, guard)
    }

    #[inline(always)]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, guard) = self.split(visitor, Shape::Fields);
        inner.deserialize_tuple(len, guard)
    }

    #[inline(always)]
    fn deserialize_tuple_struct<V: Visitor<'de>>(self, name: &'static str, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let (inner, guard) = self.split(visitor, Shape::Fields);
        inner.deserialize_tuple_struct(name, len, guard)
    }

    #[inline(always)]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let (inner, guard) = self.split(visitor, Shape::Fields);
        inner.deserialize_struct(name, fields, guard)
    }

    #[inline(always)]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let (inner, guard) = self.split(visitor, Shape::Fields);
        inner.deserialize_enum(name, variants, guard)
    }
}

/// A visitor that counts what it is shown. The level is taken here and not when a shape is asked
/// for, so that `None` costs none and self-describing formats are counted by what they bring.
struct Guard<'a, 'l, V> {
    visitor: V,
    budget: &'a mut Budget<'l>,
    shape: Shape,
}

macro_rules! visit_scalars {
    ($($method:ident: $type:ty,)*) => {$(
        #[inline(always)]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.visitor.$method(value)
        }
    )*};
}

macro_rules! visit_lengths {
    ($($method:ident: $type:ty,)*) => {$(
        #[inline(always)]
        fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.budget.charge_bytes(value.len())?;
            self.visitor.$method(value)
        }
    )*};
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guard<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visitor.expecting(f)
    }

    visit_scalars! {
        visit_bool: bool,
        visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128,
        visit_u8: u8, visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128,
        visit_f32: f32, visit_f64: f64, visit_char: char,
    }

    visit_lengths! {
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
        visit_bytes: &[u8], visit_borrowed_bytes: &'de [u8], visit_byte_buf: Vec<u8>,
    }

    #[inline(always)]
    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.visitor.visit_unit()
    }

    #[inline(always)]
    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.budget.hold::<V::Value, E>()?;
        self.visitor.visit_none()
    }

    #[inline(always)]
    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.budget.nest(|budget| self.visitor.visit_some(Limited { inner, budget }))
    }

    #[inline(always)]
    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.budget.hold::<V::Value, D::Error>()?;
        self.visitor.visit_newtype_struct(Limited { inner, budget: self.budget })
    }

    #[inline(always)]
    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { visitor, budget, shape } = self;
        let room = match shape {
            Shape::Elements => 0,
            Shape::Fields | Shape::Payload => size_of::<V::Value>(),
        };
        let elements = matches!(shape, Shape::Elements);
        let read = |budget: &mut _| visitor.visit_seq(Sequence { access, budget, room, elements });
        match shape {
            Shape::Elements | Shape::Fields => budget.nest(read),
            Shape::Payload => {
                budget.hold::<V::Value, A::Error>()?;
                read(budget)
            }
        }
    }

    #[inline(always)]
    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let Self { visitor, budget, shape } = self;
        let read = |budget: &mut _| visitor.visit_map(Entries { access, budget });
        match shape {
            Shape::Elements | Shape::Fields => budget.nest(read),
            Shape::Payload => {
                budget.hold::<V::Value, A::Error>()?;
                read(budget)
            }
        }
    }

    #[inline(always)]
    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        let room = size_of::<V::Value>();
        self.budget.nest(|budget| self.visitor.visit_enum(Variant { access, budget, room }))
    }
}

/// The elements of a sequence, or the fields of a struct or tuple.
struct Sequence<'a, 'l, A> {
    access: A,
    budget: &'a mut Budget<'l>,
    /// What the fields have not used up of their struct. Elements have none.
    room: usize,
    elements: bool,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Sequence<'_, '_, A> {
    type Error = A::Error;

    #[inline(always)]
    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        let room = self.room.min(size_of::<S::Value>());
        self.room -= room;
        self.access.next_element_seed(Seed { seed, budget: self.budget, room, is_item: self.elements })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.access.size_hint().map(|hint| hint.min(MAX_SIZE_HINT))
    }
}

/// The entries of a map. In a self-describing format also the fields of a struct; they are counted
/// the same, because there the peer says how many come.
struct Entries<'a, 'l, A> {
    access: A,
    budget: &'a mut Budget<'l>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Entries<'_, '_, A> {
    type Error = A::Error;

    #[inline(always)]
    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.access.next_key_seed(Seed { seed, budget: self.budget, room: 0, is_item: true })
    }

    #[inline(always)]
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.access.next_value_seed(Seed { seed, budget: self.budget, room: 0, is_item: false })
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.access.size_hint().map(|hint| hint.min(MAX_SIZE_HINT))
    }
}

/// An enum's variant, first its name and then its payload.
struct Variant<'a, 'l, A> {
    access: A,
    budget: &'a mut Budget<'l>,
    /// The size of the enum, in which the payload lies.
    room: usize,
}

impl<'de, 'a, 'l, A: EnumAccess<'de>> EnumAccess<'de> for Variant<'a, 'l, A> {
    type Error = A::Error;
    type Variant = Variant<'a, 'l, A::Variant>;

    #[inline(always)]
    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        let Self { access, budget, room } = self;
        let (name, access) = access.variant_seed(seed)?;
        Ok((name, Variant { access, budget, room }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Variant<'_, '_, A> {
    type Error = A::Error;

    #[inline(always)]
    fn unit_variant(self) -> Result<(), A::Error> {
        self.access.unit_variant()
    }

    #[inline(always)]
    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.access.newtype_variant_seed(Seed { seed, budget: self.budget, room: self.room, is_item: false })
    }

    #[inline(always)]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.access.tuple_variant(len, Guard { visitor, budget: self.budget, shape: Shape::Payload })
    }

    #[inline(always)]
    fn struct_variant<V: Visitor<'de>>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, A::Error> {
        self.access.struct_variant(fields, Guard { visitor, budget: self.budget, shape: Shape::Payload })
    }
}

/// A part that pays when it turns out to be there: a sequence learns of its end only by asking.
struct Seed<'a, 'l, S> {
    seed: S,
    budget: &'a mut Budget<'l>,
    room: usize,
    is_item: bool,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Seed<'_, '_, S> {
    type Value = S::Value;

    #[inline(always)]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let Self { seed, budget, room, is_item } = self;
        if is_item {
            budget.charge_item()?;
        }
        budget.room = room;
        budget.hold::<S::Value, D::Error>()?;
        seed.deserialize(Limited { inner, budget })
    }
}

#[cfg(test)]
mod tests;
