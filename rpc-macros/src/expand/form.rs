//! What becomes of one argument at each of the places it passes: encoded, decoded, owned, handed on.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{Ident, Type};

use super::near;
use crate::model::{Argument, Form, Role};
use crate::shape;

/// The expression that the client encodes. `private` is the facade's module.
pub(super) fn encoded(private: &TokenStream, ident: &Ident, form: &Form) -> TokenStream {
    match form {
        Form::Str | Form::Slice(_) | Form::Borrowed(_) => quote!(#ident),
        Form::Bytes | Form::BorrowedByteVec(_) => quote!(#private::BytesRef(#ident)),
        Form::ByteVec => quote!(#private::BytesRef(&#ident)),
        Form::OptByteVec => quote!(#private::OptByteVec(#ident)),
        Form::Owned => quote!(&#ident),
    }
}

/// The type that the server decodes.
pub(super) fn wire_type(private: &TokenStream, argument: &Argument, form: &Form) -> TokenStream {
    match form {
        Form::Str => quote!(#private::Str<'_>),
        Form::Bytes => quote!(#private::ByteSlice<'_>),
        Form::Slice(item) => quote!(::std::vec::Vec<#item>),
        Form::BorrowedByteVec(_) | Form::ByteVec => quote!(#private::ByteVec),
        Form::OptByteVec => quote!(#private::OptByteVec),
        Form::Borrowed(ty) => quote!(#ty),
        Form::Owned => {
            let ty = &argument.ty;
            quote!(#ty)
        }
    }
}

/// The expression that hands a decoded argument to the service.
pub(super) fn decoded(ident: &Ident, form: &Form) -> TokenStream {
    match form {
        Form::Str | Form::Bytes | Form::Slice(_) | Form::Borrowed(_) => quote!(&#ident),
        Form::BorrowedByteVec(_) => quote!(&#ident.0),
        Form::ByteVec | Form::OptByteVec => quote!(#ident.0),
        Form::Owned => quote!(#ident),
    }
}

/// The statement, if one is needed, that makes an argument outlive the call that names it.
pub(super) fn owned(private: &TokenStream, argument: &Argument) -> Option<TokenStream> {
    let ident = &argument.ident;
    match &argument.role {
        Role::Wire(Form::Str | Form::Bytes | Form::Slice(_)) => {
            Some(quote!(let #ident = ::std::borrow::ToOwned::to_owned(#ident);))
        }
        // At the type, so that a missing `Clone` is reported there.
        Role::Wire(Form::Borrowed(ty) | Form::BorrowedByteVec(ty)) => {
            Some(quote_spanned!(near(ty)=> let #ident = <#ty as ::core::clone::Clone>::clone(#ident);))
        }
        Role::Wire(Form::ByteVec | Form::OptByteVec | Form::Owned) => None,
        Role::Stream(_) => Some(quote!(let #ident = #private::Streaming::new(#ident);)),
        Role::Context => None,
    }
}

/// The expression that hands an owned argument to the service.
pub(super) fn handed_on(argument: &Argument) -> TokenStream {
    let ident = &argument.ident;
    match &argument.role {
        Role::Wire(Form::ByteVec | Form::OptByteVec | Form::Owned) | Role::Stream(_) => quote!(#ident),
        Role::Wire(_) | Role::Context => quote!(&#ident),
    }
}

/// The type that a value or an item has on the wire.
pub(super) fn answer_type(private: &TokenStream, ty: &Type) -> TokenStream {
    match ty {
        ty if shape::is_byte_vec(ty) => quote!(#private::ByteVec),
        ty if shape::is_opt_byte_vec(ty) => quote!(#private::OptByteVec),
        ty => quote!(#ty),
    }
}
