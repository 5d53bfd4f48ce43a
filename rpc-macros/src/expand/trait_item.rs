//! The trait: as it was written, with each `async fn` told to be `Send`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{ItemTrait, ReturnType, Token, TraitItem, TraitItemFn, Type, parse_quote};

use super::{allow_deprecated, names, near, parameters};
use crate::attr;
use crate::model::{Method, Service};

/// The trait itself. Also made for faulty traits, so it takes any shape.
pub(super) fn item(item: &ItemTrait) -> ItemTrait {
    let mut item = item.clone();
    item.colon_token.get_or_insert_with(<Token![:]>::default);
    item.supertraits.push(parse_quote!(::core::marker::Send));
    item.supertraits.push(parse_quote!(::core::marker::Sync));
    for member in &mut item.items {
        if let TraitItem::Fn(method) = member {
            method.attrs.retain(|attr| !attr::is_ours(attr));
            make_send(method);
        }
    }
    item
}

/// `async fn` becomes a function that returns a `Send` future; implementors may write either.
fn make_send(method: &mut TraitItemFn) {
    if method.sig.asyncness.take().is_none() {
        return;
    }
    let output = match &method.sig.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, ty) => (**ty).clone(),
    };
    let future = future(&output);
    method.sig.output = parse_quote!(-> #future);
    // Only a faulty trait has bodies; this one should have no fault but that.
    if let Some(body) = &mut method.default {
        *body = parse_quote!({ async move #body });
    }
}

/// The return type of a method. Located at the user's, for there the compiler says that a future is not `Send`.
fn future(output: &Type) -> TokenStream {
    quote_spanned!(near(output)=> impl ::core::future::Future<Output = #output> + ::core::marker::Send)
}

/// The trait for the `Arc` of an implementor.
pub(super) fn shared(service: &Service) -> TokenStream {
    let name = &service.item.ident;
    let allow = allow_deprecated(service);
    let methods = service.methods.iter().map(|method| forward(service, method));
    quote! {
        #allow
        #[automatically_derived]
        impl<__T: #name + ?::core::marker::Sized> #name for ::std::sync::Arc<__T> {
            #(#methods)*
        }
    }
}

fn forward(service: &Service, method: &Method) -> TokenStream {
    let name = &service.item.ident;
    let Method { ident, output, .. } = method;
    let parameters = parameters(method);
    let names = names(method);
    let future = future(output);
    quote_spanned! {near(ident)=>
        fn #ident(&self, #(#parameters),*) -> #future {
            <__T as #name>::#ident(self, #(#names),*)
        }
    }
}
