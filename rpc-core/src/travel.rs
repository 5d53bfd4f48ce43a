//! What may travel, said once.
//!
//! Generated code handles a value of the user's type `T` as `<T as Argument<_>>::Same`, which is `T`. Where `T` does not
//! travel, the compiler does not know what that is: it says why, at the type, and nothing of what would follow. For this
//! to work the traits have a second implementation, so that an impl is not chosen before it is known to fit, and the way
//! between `T` and what it is the same as ([`Is`]) has one too, so that the one does not follow from the other.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::status::AppError;

/// What an argument of a method, or an item of a stream that goes up, must be. Implemented for everything that fits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an argument of a service's method",
    label = "this does not travel",
    note = "what travels is owned and `Send`, and so is all that is in it: derive `serde::Serialize` and `serde::Deserialize`"
)]
pub trait Argument<How> {
    /// The type itself.
    type Same;
}

/// What an answer of a method, or an item of a stream that comes down, must be. Implemented for everything that fits.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an answer of a service's method",
    label = "this does not travel",
    note = "what travels is owned and `Send`, and so is all that is in it: derive `serde::Serialize` and `serde::Deserialize`"
)]
pub trait Answer<How> {
    /// The type itself.
    type Same;
}

/// Says of an error that cannot travel that it cannot, before anything else does.
#[inline]
pub fn error<E: AppError>() {}

/// How everything travels that does.
#[derive(Debug)]
pub enum Encoded {}

/// How nothing travels.
#[derive(Debug)]
pub enum Nohow {}

/// Implemented for nothing.
pub trait Impossible {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Argument<Encoded> for T {
    type Same = T;
}

#[diagnostic::do_not_recommend]
impl<T: Impossible> Argument<Nohow> for T {
    type Same = T;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Answer<Encoded> for T {
    type Same = T;
}

#[diagnostic::do_not_recommend]
impl<T: Impossible> Answer<Nohow> for T {
    type Same = T;
}

/// `T` is `T`.
pub trait Is<S>: Sized {
    /// The value.
    fn value(self) -> S;

    /// The value, borrowed.
    fn borrowed(&self) -> &S;

    /// Many of them, borrowed.
    fn slice(values: &[Self]) -> &[S];

    /// Many of them.
    fn vec(values: Vec<Self>) -> Vec<S>;
}

impl<T> Is<T> for T {
    #[inline]
    fn value(self) -> T {
        self
    }

    #[inline]
    fn borrowed(&self) -> &T {
        self
    }

    #[inline]
    fn slice(values: &[T]) -> &[T] {
        values
    }

    #[inline]
    fn vec(values: Vec<T>) -> Vec<T> {
        values
    }
}

/// What nobody asks for.
#[derive(Debug)]
pub struct Nothing<T>(PhantomData<fn() -> T>);

impl<T> Is<Nothing<T>> for T {
    fn value(self) -> Nothing<T> {
        Nothing(PhantomData)
    }

    fn borrowed(&self) -> &Nothing<T> {
        &Nothing(PhantomData)
    }

    fn slice(_: &[T]) -> &[Nothing<T>] {
        &[]
    }

    fn vec(_: Vec<T>) -> Vec<Nothing<T>> {
        Vec::new()
    }
}

/// See [`Is::value`].
#[inline]
pub fn value<T: Is<S>, S>(value: T) -> S {
    value.value()
}

/// See [`Is::borrowed`].
#[inline]
pub fn borrowed<T: Is<S>, S>(value: &T) -> &S {
    value.borrowed()
}

/// See [`Is::slice`].
#[inline]
pub fn slice<T: Is<S>, S>(values: &[T]) -> &[S] {
    T::slice(values)
}

/// See [`Is::vec`].
#[inline]
pub fn vec<T: Is<S>, S>(values: Vec<T>) -> Vec<S> {
    T::vec(values)
}
