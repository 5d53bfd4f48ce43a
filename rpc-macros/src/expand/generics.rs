//! The parameters of the trait, on the trait and on its siblings: `Kv<T>`, `KvClient<T>`, `KvServer<S, T>`.

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote};
use syn::{GenericParam, Generics, Ident, parse_quote};

use crate::model::Service;
use crate::shape;

/// The trait as a bound.
pub(super) fn bound(service: &Service) -> TokenStream {
    applied(service, &service.item.ident)
}

pub(super) fn client(service: &Service) -> TokenStream {
    applied(service, &service.client())
}

pub(super) fn twin(service: &Service) -> TokenStream {
    applied(service, &service.twin())
}

/// The twin in an expression.
pub(super) fn twin_path(service: &Service) -> TokenStream {
    let (twin, arguments) = (service.twin(), service.item.generics.split_for_impl().1);
    let arguments = arguments.as_turbofish();
    quote!(#twin #arguments)
}

/// The server of implementors called `implementor`.
pub(super) fn server(service: &Service, implementor: &Ident) -> TokenStream {
    let (server, names) = (service.server(), service.item.generics.params.iter().map(name));
    quote!(#server<#implementor #(, #names)*>)
}

/// What an `impl` for the client declares.
pub(super) fn declared(service: &Service) -> TokenStream {
    service.item.generics.split_for_impl().0.to_token_stream()
}

/// What an `impl` for all implementors declares; `parameter` is theirs.
pub(super) fn declared_with(service: &Service, parameter: GenericParam) -> TokenStream {
    let mut generics = service.item.generics.clone();
    generics.params.push(parameter);
    generics.split_for_impl().0.to_token_stream()
}

/// An implementor as a parameter.
pub(super) fn implementor(service: &Service, name: &Ident) -> GenericParam {
    let bound = bound(service);
    parse_quote!(#name: #bound + 'static)
}

/// What users read in the server's place for the implementor, unless it means something else to them.
pub(super) fn implementor_name(service: &Service) -> Ident {
    let item = &service.item;
    let generics = &item.generics;
    let taken = item.ident == "S" || shape::mentions(generics, "S") || shape::mentions(&generics.where_clause, "S");
    Ident::new(if taken { "__S" } else { "S" }, Span::call_site())
}

/// The server's own parameters: the implementor, and those of the trait without what it asks of them.
pub(super) fn of_server(service: &Service) -> Generics {
    let mut generics = service.item.generics.clone();
    generics.where_clause = None;
    for parameter in &mut generics.params {
        if let GenericParam::Type(ty) = parameter {
            ty.bounds.clear();
            ty.colon_token = None;
        }
    }
    let implementor = implementor_name(service);
    generics.params.insert(0, parse_quote!(#implementor));
    generics
}

/// The server's field for types that none of its other fields has, and that field's value.
pub(super) fn marker(service: &Service) -> Option<(TokenStream, TokenStream)> {
    let mut types = service.item.generics.type_params().map(|ty| &ty.ident).peekable();
    types.peek()?;
    let field = quote!(types: ::core::marker::PhantomData<fn() -> (#(#types,)*)>,);
    Some((field, quote!(types: ::core::marker::PhantomData,)))
}

fn applied(service: &Service, ident: &Ident) -> TokenStream {
    let arguments = service.item.generics.split_for_impl().1;
    quote!(#ident #arguments)
}

fn name(parameter: &GenericParam) -> TokenStream {
    match parameter {
        GenericParam::Type(ty) => ty.ident.to_token_stream(),
        GenericParam::Const(constant) => constant.ident.to_token_stream(),
        GenericParam::Lifetime(lifetime) => lifetime.lifetime.to_token_stream(),
    }
}
