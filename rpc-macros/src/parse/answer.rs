//! The return type: `rpc::Result<T, E>`, with the error left out or behind an alias.

use quote::ToTokens;
use syn::{Path, ReturnType, Signature, Type};

use super::nested;
use crate::fault::Faults;
use crate::model::ErrorType;
use crate::shape;

/// The two types of a `Result`.
pub(super) struct Answer {
    pub(super) value: Type,
    pub(super) error: ErrorType,
    /// Whether the `Result` is certainly the facade's.
    pub(super) certain: bool,
}

impl Answer {
    /// `Result<()>`, the answer of a one-way method.
    pub(super) fn is_nothing(&self) -> bool {
        let unit = matches!(shape::bare(&self.value), Type::Tuple(tuple) if tuple.elems.is_empty());
        unit && !matches!(self.error, ErrorType::Named(_))
    }
}

/// The answer, if it is sound.
pub(super) fn parse(signature: &Signature, krate: &Path, faults: &mut Faults) -> Option<Answer> {
    const SHAPE: &str = "a method of a service returns `rpc::Result<..>`: any call can fail on its way";
    let ReturnType::Type(_, ty) = &signature.output else {
        faults.at(&signature.ident, SHAPE);
        return None;
    };
    let result = shape::path(ty).filter(|_| shape::ends_in(ty, "Result"));
    let Some(result) = result.filter(|path| !is_foreign(path)) else {
        faults.at(ty, SHAPE);
        return None;
    };
    let before = faults.count();
    let (value, error) = match shape::type_arguments(result)[..] {
        [value] if is_facade(result, krate) => (value, ErrorType::Never),
        [value] => (value, ErrorType::Alias),
        [value, error] => (value, ErrorType::Named(Box::new(error.clone()))),
        _ => {
            faults.at(ty, "the type of the value is missing: `rpc::Result<T>` or `rpc::Result<T, E>`");
            return None;
        }
    };
    if shape::ends_in(value, "Streaming") {
        check_stream(value, faults);
    } else {
        nested::check_answer(value, faults);
    }
    if let ErrorType::Named(error) = &error {
        nested::check_answer(error, faults);
    }
    let certain = is_facade(result, krate);
    (faults.count() == before).then(|| Answer { value: value.clone(), error, certain })
}

fn check_stream(value: &Type, faults: &mut Faults) {
    let path = shape::path(value);
    if path.map(shape::type_arguments).unwrap_or_default().is_empty() {
        faults.at(value, "the stream needs the type of its items: `rpc::Streaming<T>`");
    }
    if let Some(last) = path.and_then(|path| path.segments.last()) {
        nested::check_items(&last.arguments, faults);
    }
}

/// `std`'s own, which has no place for what can happen on the way.
fn is_foreign(path: &Path) -> bool {
    let first = path.segments.first().filter(|_| path.segments.len() > 1);
    first.is_some_and(|first| ["std", "core"].iter().any(|name| first.ident == name))
}

/// Whether the path is certainly the facade's `Result`, whose error is `Never` when it is left out.
fn is_facade(path: &Path, krate: &Path) -> bool {
    let names = |path: &Path| path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>();
    let mut facade = names(krate);
    facade.push("Result".to_owned());
    let written = names(path);
    written == facade || written == ["rpc", "Result"] && krate.to_token_stream().to_string() == ":: rpc"
}
