//! What becomes of one argument at each of the places it passes: encoded, decoded, owned, handed on.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Ident, Type};

use super::near;
use crate::model::{Argument, Form, Role};
use crate::shape;

/// The expression that the client encodes. `private` is the facade's module.
pub(super) fn encoded(private: &TokenStream, argument: &Argument, form: &Form) -> TokenStream {
    let ident = &argument.ident;
    match form {
        Form::Str => quote!(#ident),
        Form::Slice(item) => through(private, item, "slice", &quote!(#ident)),
        Form::Borrowed(ty) => through(private, ty, "borrowed", &quote!(#ident)),
        Form::Bytes | Form::BorrowedByteVec(_) => quote!(#private::BytesRef(#ident)),
        Form::ByteVec => quote!(#private::BytesRef(&#ident)),
        Form::OptByteVec => quote!(#private::OptByteVec(#ident)),
        Form::Owned => through(private, &argument.ty, "borrowed", &quote!(&#ident)),
    }
}

/// The type that the server decodes.
pub(super) fn wire_type(private: &TokenStream, argument: &Argument, form: &Form) -> TokenStream {
    match form {
        Form::Str => quote!(#private::Str<'_>),
        Form::Bytes => quote!(#private::ByteSlice<'_>),
        Form::Slice(item) => {
            let item = item_type(private, item);
            quote!(::std::vec::Vec<#item>)
        }
        Form::BorrowedByteVec(_) | Form::ByteVec => quote!(#private::ByteVec),
        Form::OptByteVec => quote!(#private::OptByteVec),
        Form::Borrowed(ty) => item_type(private, ty),
        Form::Owned if shape::is_called_bytes(&argument.ty) => {
            let bytes = item_type(private, &argument.ty);
            quote!(#private::Shared<#bytes>)
        }
        Form::Owned => item_type(private, &argument.ty),
    }
}

/// The expression that hands a decoded argument to the service.
pub(super) fn decoded(private: &TokenStream, argument: &Argument, form: &Form) -> TokenStream {
    let ident = &argument.ident;
    match form {
        Form::Str | Form::Bytes => quote!(&#ident),
        Form::Slice(item) if !shape::is_known(item) => quote!(&#private::travel::vec(#ident)),
        Form::Borrowed(ty) if !shape::is_known(ty) => quote!(&#private::travel::value(#ident)),
        Form::Slice(_) | Form::Borrowed(_) => quote!(&#ident),
        Form::BorrowedByteVec(_) => quote!(&#ident.0),
        Form::ByteVec | Form::OptByteVec => quote!(#ident.0),
        Form::Owned if shape::is_called_bytes(&argument.ty) => quote!(#private::travel::value(#ident.into_inner())),
        Form::Owned if !shape::is_known(&argument.ty) => quote!(#private::travel::value(#ident)),
        Form::Owned => quote!(#ident),
    }
}

/// The type of an argument, or of an item that goes up, on the wire.
pub(super) fn item_type(private: &TokenStream, ty: &Type) -> TokenStream {
    match ty {
        ty if shape::is_byte_vec(ty) => quote!(#private::ByteVec),
        ty if shape::is_opt_byte_vec(ty) => quote!(#private::OptByteVec),
        ty if shape::is_known(ty) => quote!(#ty),
        ty => quote_spanned!(ty.span()=> <#ty as #private::Argument<_>>::Same),
    }
}

/// A value as that which its type is the same as, so that of a type which does not travel nothing else is said. What is known
/// to travel takes the short way.
fn through(private: &TokenStream, ty: &Type, function: &str, value: &TokenStream) -> TokenStream {
    if shape::is_known(ty) {
        return value.clone();
    }
    let function = Ident::new(function, near(ty));
    let same = item_type(private, ty);
    quote_spanned!(near(ty)=> #private::travel::#function::<_, #same>(#value))
}

/// What makes of an answer that which the server encodes, if that is not the answer itself.
pub(super) fn given(private: &TokenStream, ty: &Type) -> Option<TokenStream> {
    match ty {
        ty if shape::is_byte_vec(ty) || shape::is_opt_byte_vec(ty) => Some(answer_type(private, ty)),
        ty if shape::is_known(ty) => None,
        ty => {
            let same = answer_type(private, ty);
            Some(quote_spanned!(near(ty)=> #private::travel::value::<_, #same>))
        }
    }
}

/// The statement, if one is needed, that makes an argument outlive the call that names it.
pub(super) fn owned(private: &TokenStream, argument: &Argument) -> Option<TokenStream> {
    let ident = &argument.ident;
    match &argument.role {
        Role::Wire(Form::Str | Form::Bytes) => Some(quote!(let #ident = ::std::borrow::ToOwned::to_owned(#ident);)),
        Role::Wire(Form::Slice(item)) => Some(quote_spanned!(near(item)=> let #ident = <[#item]>::to_vec(#ident);)),
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

/// The type that an answer, or an item of one, has on the wire.
pub(super) fn answer_type(private: &TokenStream, ty: &Type) -> TokenStream {
    match ty {
        ty if shape::is_byte_vec(ty) => quote!(#private::ByteVec),
        ty if shape::is_opt_byte_vec(ty) => quote!(#private::OptByteVec),
        ty if shape::is_known(ty) => quote!(#ty),
        ty => quote_spanned!(ty.span()=> <#ty as #private::Answer<_>>::Same),
    }
}
