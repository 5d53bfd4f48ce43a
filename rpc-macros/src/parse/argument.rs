//! One argument: what it is, judged by its type as written.

use syn::{Ident, Pat, PatType, Type, TypeReference};

use super::nested;
use crate::fault::Faults;
use crate::model::{Argument, Form, Role};
use crate::shape;

/// The argument, if it is sound.
pub(super) fn parse(argument: &PatType, faults: &mut Faults) -> Option<Argument> {
    let before = faults.count();
    let ident = name(&argument.pat, faults);
    let role = role(&argument.ty, faults);
    if faults.count() > before {
        return None;
    }
    Some(Argument { ident: ident?, ty: (*argument.ty).clone(), role })
}

fn name(pattern: &Pat, faults: &mut Faults) -> Option<Ident> {
    match pattern {
        Pat::Ident(name) if name.by_ref.is_none() && name.mutability.is_none() && name.subpat.is_none() => {
            Some(name.ident.clone())
        }
        _ => {
            faults.at(pattern, "an argument of a service's method is a plain name");
            None
        }
    }
}

fn role(ty: &Type, faults: &mut Faults) -> Role {
    match shape::bare(ty) {
        Type::Reference(reference) => borrowed(reference, faults),
        owned if shape::ends_in(owned, "Streaming") => stream(owned, faults),
        owned => {
            nested::check_argument(owned, faults);
            Role::Wire(match owned {
                ty if shape::is_byte_vec(ty) => Form::ByteVec,
                ty if shape::is_opt_byte_vec(ty) => Form::OptByteVec,
                _ => Form::Owned,
            })
        }
    }
}

fn borrowed(reference: &TypeReference, faults: &mut Faults) -> Role {
    if let Some(mutability) = &reference.mutability {
        faults.at(mutability, "an argument is not `&mut`: the other side works on its own copy; return what has changed");
    }
    if let Some(lifetime) = &reference.lifetime {
        faults.at(lifetime, nested::LIFETIME);
    }
    let ty = shape::bare(&reference.elem);
    if shape::ends_in(ty, "Streaming") {
        faults.at(reference, "a stream is taken by value: `rpc::Streaming<..>`");
    } else {
        nested::check_argument(ty, faults);
    }
    if shape::ends_in(ty, "Context") {
        return Role::Context;
    }
    Role::Wire(match ty {
        ty if shape::is_str(ty) => Form::Str,
        Type::Slice(slice) if shape::is_u8(&slice.elem) => Form::Bytes,
        Type::Slice(slice) => Form::Slice((*slice.elem).clone()),
        ty if shape::is_byte_vec(ty) => Form::BorrowedByteVec(ty.clone()),
        _ => Form::Borrowed(ty.clone()),
    })
}

fn stream(ty: &Type, faults: &mut Faults) -> Role {
    let items = shape::path(ty).map(shape::type_arguments).unwrap_or_default();
    match items[..] {
        [item] => nested::check_argument(item, faults),
        [_, error] => faults.at(error, "a stream argument has no error of its own: `rpc::Streaming<T>`"),
        _ => faults.at(ty, "the stream needs the type of its items: `rpc::Streaming<T>`"),
    }
    Role::Stream(items.first().map_or_else(|| ty.clone(), |item| (*item).clone()))
}
