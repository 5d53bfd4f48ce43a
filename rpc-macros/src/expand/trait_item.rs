//! The trait: as it was written, with each `async fn` told to be `Send`, or not to be.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::{ItemTrait, ReturnType, Token, TraitItem, TraitItemFn, Type, parse_quote};

use super::{allow_deprecated, generics, names, near, parameters};
use crate::attr;
use crate::model::{Method, Service};

/// The trait itself. Also made for faulty traits, so it takes any shape.
pub(super) fn item(service: &Service) -> ItemTrait {
    let mut item = service.item.clone();
    if !service.local {
        item.colon_token.get_or_insert_with(<Token![:]>::default);
        item.supertraits.push(parse_quote!(::core::marker::Send));
        item.supertraits.push(parse_quote!(::core::marker::Sync));
    }
    for member in &mut item.items {
        if let TraitItem::Fn(method) = member {
            method.attrs.retain(|attr| !attr::is_ours(attr) && !attr::is_ours_perhaps(attr));
            declare(method, service.local);
        }
    }
    item
}

/// `async fn` becomes a function that returns a future, and says whether that is `Send`; implementors may write either.
fn declare(method: &mut TraitItemFn, local: bool) {
    if method.sig.asyncness.take().is_none() {
        return;
    }
    let output = match &method.sig.output {
        ReturnType::Default => parse_quote!(()),
        ReturnType::Type(_, ty) => (**ty).clone(),
    };
    let future = future(&output, local);
    method.sig.output = parse_quote!(-> #future);
    // Only a faulty trait has bodies; this one should have no fault but that.
    if let Some(body) = &mut method.default {
        *body = parse_quote!({ async move #body });
    }
}

/// The return type of a method. Located at the user's, for there the compiler says that a future is not `Send`.
fn future(output: &Type, local: bool) -> TokenStream {
    let here = near(output);
    let send = (!local).then(|| quote_spanned!(here=> + ::core::marker::Send));
    quote_spanned!(here=> impl ::core::future::Future<Output = #output> #send)
}

/// The trait for the `Arc` of an implementor, or for the `Rc` of one that stays on its thread.
pub(super) fn shared(service: &Service) -> TokenStream {
    let (bound, filter) = (generics::bound(service), &service.item.generics.where_clause);
    let declared = generics::declared_with(service, parse_quote!(__T: #bound + ?::core::marker::Sized));
    let pointer = if service.local { quote!(::std::rc::Rc) } else { quote!(::std::sync::Arc) };
    let allow = allow_deprecated(service);
    let methods = service.methods.iter().map(|method| forward(service, method));
    quote! {
        #allow
        #[automatically_derived]
        impl #declared #bound for #pointer<__T> #filter {
            #(#methods)*
        }
    }
}

fn forward(service: &Service, method: &Method) -> TokenStream {
    let bound = generics::bound(service);
    let Method { ident, output, .. } = method;
    let parameters = parameters(method);
    let names = names(method);
    let future = future(output, service.local);
    quote_spanned! {near(ident)=>
        fn #ident(&self, #(#parameters),*) -> #future {
            <__T as #bound>::#ident(self, #(#names),*)
        }
    }
}
